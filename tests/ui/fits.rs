//! What fits, so that the other programs fail for their own reasons.

use celeriac::task;

#[task]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[task]
async fn length(text: String) -> i64 {
    text.len() as i64
}

#[task]
async fn total(numbers: Vec<i64>) -> i64 {
    numbers.into_iter().sum()
}

fn main() {
    let chain = add::s(2, 2) | add::partial(3) | add::si(1, 1);
    let _ = celeriac::chain((chain, add::partial(4)));
    let _ = celeriac::group([add::s(1, 1), add::s(2, 2)]) | total::partial();
    let _ = celeriac::chord((add::s(1, 1), length::s(String::new())), add::si(1, 1));
    let _ = add::s(1, 1).link(add::partial(2)).link_error(length::partial());
    let _ = add::s(1, 1) | celeriac::group((add::partial(1), add::si(1, 1)));
}
