//! `ping`: does a broker answer, which one, and how fast.

use celeriac::client::ping;
use celeriac::protocol::Map;

use crate::args::Common;
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Connects, logs in, and tells about it.
pub(crate) async fn run(common: &Common) -> Result<Exit, Failure> {
    let config = connect::config(common)?;
    let pong = ping(&config).await.map_err(|error| connect::not_connected(&error))?;
    Output::new(common.json).show(
        || {
            let server = match &pong.server {
                Some(server) => format!("{} {}", server.product, server.version),
                None => "the broker".to_owned(),
            };
            let (login, round_trip) = (millis(pong.login), pong.round_trip.map(millis));
            let fast = round_trip.map_or_else(String::new, |it| format!("round trip {it:.1} ms, "));
            format!("{server} at {} answers ({fast}login {login:.1} ms)", pong.broker)
        },
        || {
            let mut object = Map::new();
            object.push("broker", pong.broker.to_string());
            object.push("product", pong.server.as_ref().map(|server| server.product.as_str()));
            object.push("version", pong.server.as_ref().map(|server| server.version.as_str()));
            object.push("round_trip_s", pong.round_trip.map(|it| it.as_secs_f64()));
            object.push("login_s", pong.login.as_secs_f64());
            object
        },
    );
    Ok(Exit::Success)
}

fn millis(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
