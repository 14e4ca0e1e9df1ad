//! Writes what stands beside the function of a task.
//!
//! A type rather than a module carries it: types and functions may share a name as well, and
//! unlike a module a type sees the scope of the function, also inside of other functions.

use std::time::Duration;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{ItemFn, Type};

use crate::key::{Key, Part};
use crate::options::{ErrorClass, Options};
use crate::parse::{Default, Output, Param, Task, wire_names};

// Emitted code says `allow` and not `expect`: whether such a lint fires depends on the function
// that somebody else wrote, and an expectation that is not met would be a warning to them.

/// The function itself, excused from what the attribute makes it do.
pub(crate) fn function(function: &ItemFn) -> TokenStream {
    quote! {
        #[allow(clippy::needless_pass_by_value, clippy::unused_async)]
        #function
    }
}

/// The type with `NAME`, `s` and its relatives, `delay` and `def`, and the registration.
pub(crate) fn task(task: &Task) -> TokenStream {
    let Task { conditions, visibility, ident, .. } = task;
    let function = ident.unraw().to_string();
    let name = name(task, &function);
    let out = out(&task.output);
    let wire = task.params.iter().filter_map(|param| match param {
        Param::Wire { ident, ty, .. } => Some((ident, &**ty)),
        Param::Context { .. } | Param::State { .. } => None,
    });
    let (idents, types): (Vec<_>, Vec<_>) = wire.unzip();
    let definition = definition(task, &function);
    let waiting = waiting(visibility, &out, &idents, &types);
    // Out of reach for parameters of the same name.
    let client = Ident::new("client", Span::mixed_site());
    let about = format!("The task [`{function}`](fn@{ident}): names it, calls it, describes it.");
    quote! {
        #(#conditions)*
        #[doc = #about]
        #[allow(non_camel_case_types, dead_code)]
        #[derive(Debug)]
        #visibility enum #ident {}

        #(#conditions)*
        #[allow(dead_code, clippy::too_many_arguments)]
        impl #ident {
            /// Name of the task on the wire.
            #visibility const NAME: &'static str = #name;

            /// A call of the task, to be sent.
            #visibility fn s(#(#idents: #types),*) -> ::celeriac::Signature<#out> {
                ::celeriac::__private::signature(Self::def())#(.arg(#idents))*
            }

            /// A call of the task that ignores the result of the step before, in a workflow.
            #visibility fn si(
                #(#idents: #types),*
            ) -> ::celeriac::Signature<#out, ::celeriac::__private::Immutable> {
                Self::s(#(#idents),*).si()
            }

            #waiting

            /// Sends a call of the task, with its default options.
            #visibility async fn delay(
                #client: &::celeriac::Client,
                #(#idents: #types),*
            ) -> ::core::result::Result<::celeriac::AsyncResult<#out>, ::celeriac::SendError> {
                Self::s(#(#idents),*).apply_async(#client).await
            }

            /// The definition of the task, for explicit registration.
            #visibility const fn def() -> &'static ::celeriac::__private::TaskDef {
                #definition
            }
        }

        #(#conditions)*
        ::celeriac::__private::inventory::submit! {
            ::celeriac::__private::Submitted(#ident::def())
        }
    }
}

/// Elements of a tuple that serde writes, at most.
const TUPLE_MAX: usize = 16;

/// The calls that leave arguments open: `partial`, `starmap` and `chunks`.
fn waiting(
    visibility: &syn::Visibility,
    out: &TokenStream,
    idents: &[&Ident],
    types: &[&Type],
) -> TokenStream {
    let (Some(first), Some(idents), Some(rest)) = (types.first(), idents.get(1..), types.get(1..))
    else {
        return TokenStream::new();
    };
    let partial = quote! {
        /// A call of the task whose first argument is the result of the step before, in a
        /// workflow.
        #visibility fn partial(
            #(#idents: #rest),*
        ) -> ::celeriac::Signature<#out, ::celeriac::__private::Takes<#first>> {
            ::celeriac::__private::signature(Self::def())#(.arg(#idents))*.partial()
        }
    };
    if types.len() > TUPLE_MAX {
        return partial;
    }
    quote! {
        #partial

        /// One task that calls this one for each of `items`, a tuple of all its arguments.
        #visibility fn starmap(
            items: impl ::core::iter::IntoIterator<Item = (#(#types,)*)>,
        ) -> ::celeriac::Signature<::std::vec::Vec<#out>> {
            ::celeriac::__private::starmap(
                ::celeriac::__private::signature::<#out>(Self::def()),
                items,
            )
        }

        /// As `starmap`, in a group of tasks with `size` items each.
        #visibility fn chunks(
            items: impl ::core::iter::IntoIterator<Item = (#(#types,)*)>,
            size: usize,
        ) -> ::celeriac::Group<::std::vec::Vec<::std::vec::Vec<#out>>> {
            ::celeriac::__private::chunks(
                ::celeriac::__private::signature::<#out>(Self::def()),
                items,
                size,
            )
        }
    }
}

fn name(task: &Task, function: &str) -> TokenStream {
    if let Some(name) = &task.options.name {
        return quote!(#name);
    }
    quote! {{
        const PATH: &str =
            ::core::concat!(::core::module_path!(), "::", #function);
        const NAME: [u8; ::celeriac::__private::dotted_len(PATH)] =
            ::celeriac::__private::dotted(PATH);
        ::celeriac::__private::text(&NAME)
    }}
}

/// The type of a successful result.
fn out(output: &Output) -> TokenStream {
    match output {
        Output::Value(ty) | Output::Result(ty) => quote!(#ty),
        Output::Alias(ty) => quote!(<#ty as ::celeriac::__private::Fallible>::Ok),
    }
}

/// The body of `def`.
fn definition(task: &Task, function: &str) -> TokenStream {
    let ident = &task.ident;
    let options = options(&task.options, &wire_names(&task.params));
    let params = task.params.iter().filter_map(|param| match param {
        Param::Wire { ident, default, .. } => {
            let name = ident.unraw().to_string();
            let has_default = default.is_some();
            Some(quote!(::celeriac::__private::Param { name: #name, has_default: #has_default }))
        }
        Param::Context { .. } | Param::State { .. } => None,
    });
    let states = task.params.iter().filter_map(|param| match param {
        Param::State { ty } => {
            Some(quote_spanned!(ty.span()=> ::celeriac::__private::StateType::of::<#ty>()))
        }
        Param::Wire { .. } | Param::Context { .. } => None,
    });
    let bound = task.params.iter().any(|param| matches!(param, Param::Context { .. }));
    let run = run(task, function);
    let kind = if task.is_async { quote!(Async) } else { quote!(Blocking) };
    // With the span of the name, so that it is the function's line.
    let line = quote_spanned!(ident.span()=> ::core::line!());
    quote! {
        const PARAMS: &[::celeriac::__private::Param] = &[#(#params),*];
        #run
        static DEF: ::celeriac::__private::TaskDef = ::celeriac::__private::TaskDef {
            name: #ident::NAME,
            file: ::core::file!(),
            line: #line,
            options: #options,
            params: PARAMS,
            bound: #bound,
            states: &[#(#states),*],
            run: ::celeriac::__private::Run::#kind(run),
        };
        &DEF
    }
}

/// The function that binds the arguments and calls the task's function.
fn run(task: &Task, function: &str) -> TokenStream {
    let ident = &task.ident;
    let context = Ident::new("context", Span::mixed_site());
    let arguments = Ident::new("arguments", Span::mixed_site());
    let mut bindings = TokenStream::new();
    let mut values = Vec::new();
    let mut on_wire = 0_usize;
    for (at, param) in task.params.iter().enumerate() {
        let value = format_ident!("value_{at}", span = Span::mixed_site());
        bindings.extend(match param {
            Param::Context { span } => quote_spanned! {*span=>
                let #value = ::core::clone::Clone::clone(&#context);
            },
            Param::State { ty } => quote_spanned! {ty.span()=>
                let #value = #context.state::<#ty>()?;
            },
            Param::Wire { ty, default, .. } => {
                let binding = wire_value(&arguments, on_wire, ty, default.as_ref());
                on_wire += 1;
                quote!(let #value: #ty = #binding;)
            }
        });
        values.push(value);
    }
    let wait = task.is_async.then(|| quote!(.await));
    let call = quote!(#ident(#(#values),*)#wait);
    let finish = match &task.output {
        Output::Value(ty) => {
            quote_spanned!(ty.span()=> ::celeriac::__private::finish::<#ty>(#call))
        }
        Output::Result(ty) => {
            quote_spanned!(ty.span()=> ::celeriac::__private::finish_result::<#ty, _>(#call))
        }
        Output::Alias(_) => quote!(::celeriac::__private::finish_result(#call)),
    };
    let body = quote! {
        #[allow(unused_variables, unused_mut)]
        let (#context, mut #arguments) =
            ::celeriac::__private::open(invocation, #function, PARAMS)?;
        #bindings
        #finish
    };
    if task.is_async {
        quote! {
            fn run(
                invocation: ::celeriac::__private::Invocation,
            ) -> ::celeriac::__private::BoxFuture<'static, ::celeriac::__private::TaskResult> {
                ::std::boxed::Box::pin(async move { #body })
            }
        }
    } else {
        quote! {
            fn run(
                invocation: ::celeriac::__private::Invocation,
            ) -> ::celeriac::__private::TaskResult {
                #body
            }
        }
    }
}

fn wire_value(arguments: &Ident, at: usize, ty: &Type, default: Option<&Default>) -> TokenStream {
    match default {
        None => quote_spanned!(ty.span()=> #arguments.take::<#ty>(#at)?),
        Some(Default::OfType) => quote_spanned! {ty.span()=>
            #arguments.take_or::<#ty>(#at, <#ty as ::core::default::Default>::default)?
        },
        Some(Default::Value(value)) => quote_spanned! {ty.span()=>
            #arguments.take_or::<#ty>(#at, || #value)?
        },
    }
}

/// The errors that an option names.
fn classes(field: &str, classes: Option<&[ErrorClass]>) -> TokenStream {
    let Some(classes) = classes else { return TokenStream::new() };
    let field = format_ident!("{field}");
    let classes = classes.iter().map(|class| match class {
        ErrorClass::Type(ty) => {
            quote_spanned!(ty.span()=> ::celeriac::__private::ErrorClass::of::<#ty>())
        }
        ErrorClass::Named(name) => quote!(::celeriac::__private::ErrorClass::named(#name)),
    });
    quote!(#field: const { &[#(#classes),*] },)
}

/// The key of a limit, for a task with these parameters.
fn key(key: &Key, params: &[String]) -> TokenStream {
    let parts = key.parts.iter().map(|part| match part {
        Part::Text(text) => quote!(::celeriac::__private::KeyPart::Text(#text)),
        Part::Param(name) => {
            // It was checked that there is one.
            let at = params.iter().position(|param| param == name).unwrap_or(params.len());
            quote!(::celeriac::__private::KeyPart::Param { at: #at, name: #name })
        }
        Part::Header(name) => quote!(::celeriac::__private::KeyPart::Header(#name)),
    });
    quote!(::celeriac::__private::LimitKey::new(const { &[#(#parts),*] }))
}

fn options(options: &Options, params: &[String]) -> TokenStream {
    fn option<T: quote::ToTokens>(field: &str, value: Option<T>) -> TokenStream {
        let field = format_ident!("{field}");
        match value {
            Some(value) => quote!(#field: ::core::option::Option::Some(#value),),
            None => TokenStream::new(),
        }
    }
    let time = |limit: Option<Duration>| {
        limit.map(|limit| {
            let (seconds, nanoseconds) = (limit.as_secs(), limit.subsec_nanos());
            quote!(::core::time::Duration::new(#seconds, #nanoseconds))
        })
    };
    let rate = |interval: Option<Duration>| {
        time(interval).map(|interval| quote!(::celeriac::__private::RateLimit::every(#interval)))
    };
    let variant = |ty: &str, variant: Option<&'static str>| {
        let ty = format_ident!("{ty}");
        variant.map(|variant| {
            let variant = format_ident!("{variant}");
            quote!(::celeriac::__private::#ty::#variant)
        })
    };
    let fields = [
        option("queue", options.queue.as_ref()),
        option("priority", options.priority),
        option("serializer", variant("Serializer", options.serializer)),
        option("ignore_result", options.ignore_result),
        option("unique", time(options.unique)),
        option(
            "global_concurrency",
            options.global_concurrency.map(|limit| {
                let limit = limit.get();
                quote!(match ::core::num::NonZeroU32::new(#limit) {
                    ::core::option::Option::Some(limit) => limit,
                    ::core::option::Option::None => ::core::num::NonZeroU32::MIN,
                })
            }),
        ),
        option("concurrency_key", options.concurrency_key.as_ref().map(|it| key(it, params))),
        option("global_rate_limit", rate(options.global_rate_limit)),
        option("rate_key", options.rate_key.as_ref().map(|it| key(it, params))),
        option("acks", variant("Acks", options.acks)),
        option("time_limit", time(options.time_limit)),
        option("soft_time_limit", time(options.soft_time_limit)),
        option("max_retries", options.max_retries),
        option("retry_delay", time(options.retry_delay)),
        option("retry_backoff", time(options.retry_backoff)),
        option("retry_backoff_max", time(options.retry_backoff_max)),
        option("retry_jitter", options.retry_jitter),
        classes("retry_for", options.retry_for.as_deref()),
        classes("dont_retry_for", options.dont_retry_for.as_deref()),
        option("track_started", options.track_started),
        option("isolate", variant("Isolate", options.isolate)),
        option("reject_on_worker_lost", options.reject_on_worker_lost),
        option("rate_limit", rate(options.rate_limit)),
        option("on_connection_loss", variant("OnConnectionLoss", options.on_connection_loss)),
    ];
    quote! {
        ::celeriac::__private::TaskOptions {
            #(#fields)*
            ..::celeriac::__private::TaskOptions::DEFAULT
        }
    }
}
