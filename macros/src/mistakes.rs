//! Every mistake in a task is told at compile time, all of them at once, in words that help.
//!
//! Tests only.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ItemFn;

use crate::parse;

/// What the compiler would print for `#[task(options)] function`.
fn mistakes(options: TokenStream, function: TokenStream) -> Vec<String> {
    let mut function: ItemFn = syn::parse2(function).expect("a function");
    match parse::task(options, &mut function) {
        Ok(_) => Vec::new(),
        Err(error) => error.into_iter().map(|error| error.to_string()).collect(),
    }
}

#[track_caller]
fn check_options(options: TokenStream, expected: &[&str]) {
    assert_eq!(
        mistakes(
            options,
            quote!(
                fn f() {}
            )
        ),
        expected
    );
}

#[track_caller]
fn check_function(function: TokenStream, expected: &[&str]) {
    assert_eq!(mistakes(TokenStream::new(), function), expected);
}

const TIME: &str =
    r#"expected a time such as "500ms", "30s", "10m" or "2h", or a number of seconds"#;

#[test]
fn an_unknown_option_is_met_with_the_known_ones() {
    check_options(quote!(que = "sums"), &["unknown option `que`: did you mean `queue`?"]);
    let all = "unknown option `colour`: there are: name, queue, priority, serializer, \
               ignore_result, unique, global_concurrency, concurrency_key, global_rate_limit, \
               rate_key, acks, time_limit, soft_time_limit, max_retries, retry_delay, \
               retry_backoff, retry_backoff_max, retry_jitter, retry_for, dont_retry_for, \
               track_started, isolate, reject_on_worker_lost, rate_limit, on_connection_loss, \
               blocking";
    check_options(quote!(colour = "red"), &[all]);
}

#[test]
fn the_values_of_options_are_checked() {
    let time = |option: &str| format!("`{option}`: {TIME}");
    check_options(quote!(time_limit = "soon"), &[&time("time_limit")]);
    check_options(quote!(retry_delay = "10"), &[&time("retry_delay")]);
    check_options(quote!(soft_time_limit), &[&time("soft_time_limit")]);
    check_options(quote!(priority = 256), &["`priority`: expected 0 to 255"]);
    check_options(quote!(max_retries = -1), &["`max_retries`: expected a number, 0 or more"]);
    check_options(quote!(queue = 5), &["`queue`: expected text in quotes"]);
    check_options(quote!(name = ""), &["`name`: expected text in quotes"]);
    check_options(quote!(acks = sometimes), &["`acks`: expected `late` or `early`"]);
    check_options(quote!(serializer = pickle), &["`serializer`: expected `msgpack` or `json`"]);
    let flag = "`ignore_result`: expected nothing, `true` or `false`";
    check_options(quote!(ignore_result = "yes"), &[flag]);
    check_options(quote!(queue = "a", queue = "b"), &["the option `queue` is given twice"]);
    check_options(quote!(queue("a")), &["write `option = value`"]);
}

#[test]
fn options_about_retries_fit_together() {
    let text = "`retry_backoff` has a first delay of its own: take one of them away";
    check_options(quote!(retry_backoff, retry_delay = 3), &[text]);
    let text = "`retry_jitter` says nothing without `retry_backoff`";
    check_options(quote!(retry_jitter = false), &[text]);
    let text = "`retry_backoff_max` says nothing without `retry_backoff`";
    check_options(quote!(retry_delay = 1, retry_backoff_max = 3), &[text]);
    let text = format!("`retry_backoff`: {TIME}");
    check_options(quote!(retry_backoff = "twice"), &[&text]);
    let text = "write `retry_for(std::io::Error, \"ValueError\")`";
    check_options(quote!(retry_for = "ValueError"), &[text]);
    check_options(quote!(dont_retry_for()), &["`dont_retry_for`: name at least one error"]);
    let text = "expected a class, such as \"ValueError\" or \"shop.errors.Declined\"";
    check_options(quote!(retry_for("Value Error")), &[text]);
    check_options(quote!(retry_for(A), retry_for(B)), &["the option `retry_for` is given twice"]);
    check_options(quote!(retry_backoff = "2s", retry_jitter = false, retry_for(io::Error)), &[]);
}

#[test]
fn limits_of_the_fleet_and_their_keys_are_checked() {
    let number = "`global_concurrency`: expected a number, 1 or more";
    check_options(quote!(global_concurrency = 0), &[number]);
    check_options(quote!(global_concurrency = "many"), &[number]);
    let rate = "`global_rate_limit`: expected a rate such as \"10/s\", \"100/m\" or \"1000/h\"";
    for wrong in [quote!("10/d"), quote!("fast"), quote!(0), quote!("-1/s"), quote!("0/s")] {
        check_options(quote!(global_rate_limit = #wrong), &[rate]);
    }
    let bounds = "`global_rate_limit`: expected at most \"10000/s\", and at least once in ten days";
    check_options(quote!(global_rate_limit = "10001/s"), &[bounds]);
    check_options(quote!(global_rate_limit = "0.001/h"), &[bounds]);
    check_options(quote!(global_rate_limit = "100/m", rate_key = "bank"), &[]);
    let text = "`concurrency_key` says nothing without `global_concurrency`";
    check_options(quote!(concurrency_key = "bank"), &[text]);
    let text = "`rate_key` says nothing without `global_rate_limit`";
    check_options(quote!(global_concurrency = 1, rate_key = "bank"), &[text]);
    let text = "a brace without its other one: write `{{` or `}}` for the sign itself";
    check_options(quote!(global_concurrency = 1, concurrency_key = "{tenant"), &[text]);
    let text = "no parameter `tenant`: there are none on the wire; a header is `{header:tenant}`";
    check_options(quote!(global_concurrency = 1, concurrency_key = "{tenant}"), &[text]);
    let found = mistakes(
        quote!(global_rate_limit = 5, rate_key = "{tennant}"),
        quote!(
            async fn f(cx: Context, tenant: String, r#type: i64) {}
        ),
    );
    let text = "no parameter `tennant`: there are: tenant, type; a header is `{header:tennant}`";
    assert_eq!(found, [text]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let both = ["`priority`: expected 0 to 255", "`queue`: expected text in quotes"];
    check_options(quote!(priority = 256, queue = 5), &both);
}

#[test]
fn blocking_must_fit_the_function() {
    let found = mistakes(
        quote!(blocking),
        quote!(
            async fn f() {}
        ),
    );
    let text = "an `async fn` must not block: take `async` away, or the option `blocking`";
    assert_eq!(found, [text]);
    let text = "a plain `fn` may block: make it an `async fn`, or take the option `blocking` away";
    check_options(quote!(blocking = false), &[text]);
    check_options(quote!(blocking), &[]);
}

#[test]
fn a_task_is_a_free_function_of_one_type() {
    let text = "a task is a free function: pass `self` as `State<T>`";
    check_function(
        quote!(
            async fn method(&self, x: i64) {}
        ),
        &[text],
    );
    let text = "a task cannot be generic: a worker has to know its types";
    check_function(
        quote!(
            async fn generic<T>(x: T) {}
        ),
        &[text],
    );
    let text = "a task cannot be generic: name the type";
    check_function(
        quote!(
            async fn implied(x: impl Into<String>) {}
        ),
        &[text],
    );
    let text = "the result of a task needs a type with a name";
    check_function(
        quote!(
            async fn opaque() -> impl Serialize {}
        ),
        &[text],
    );
    let text = "a task cannot be `unsafe`: messages call it";
    check_function(
        quote!(
            unsafe fn dangerous() {}
        ),
        &[text],
    );
}

#[test]
fn arguments_are_owned() {
    let check = |ty: TokenStream, instead: &str| {
        let text = format!("a task cannot borrow its arguments: take {instead}");
        check_function(quote!(async fn f(x: #ty) {}), &[&text]);
    };
    check(quote!(&str), "a `String`");
    check(quote!(&[String]), "a `Vec`");
    check(quote!(&Context), "`Context` itself");
    check(quote!(&i64), "the value itself");
    check(quote!(Option<&str>), "owned values");
    let text = "the caller of a task cannot borrow from it: return an owned value";
    check_function(
        quote!(
            async fn f() -> &'static str {}
        ),
        &[text],
    );
}

#[test]
fn parameters_have_names_and_sensible_defaults() {
    let text = "a parameter of a task needs a name, by which callers can pass it";
    check_function(
        quote!(
            async fn f((x, y): (i64, i64), _: i64) {}
        ),
        &[text, text],
    );
    let text = "a parameter without a default follows one with a default";
    check_function(
        quote!(
            async fn f(#[default] x: i64, y: i64) {}
        ),
        &[text],
    );
    let text = "this parameter is not on the wire, so it has no default";
    check_function(
        quote!(
            async fn f(#[default] state: State<i64>) {}
        ),
        &[text],
    );
    check_function(
        quote!(
            async fn f(#[default = 3] x: i64) {}
        ),
        &["write `#[default(3)]`"],
    );
}
