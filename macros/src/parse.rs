//! Reads a task out of a function: its parameters, by what they are, and its result.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, FnArg, GenericArgument, Ident, ItemFn, Meta, Pat, PatType, Path,
    PathArguments, Result, ReturnType, Signature, Type, Visibility,
};

use crate::options::Options;

/// A function that is fit to be a task.
pub(crate) struct Task {
    pub(crate) options: Options,
    /// `#[cfg]`s of the function, which hold for what is beside it as well.
    pub(crate) conditions: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) ident: Ident,
    pub(crate) is_async: bool,
    pub(crate) params: Vec<Param>,
    pub(crate) output: Output,
}

/// A parameter, by where its value comes from.
pub(crate) enum Param {
    /// From the message.
    Wire { ident: Ident, ty: Box<Type>, default: Option<Default> },
    /// The call itself.
    Context { span: Span },
    /// From the worker; the type is the `T` of `State<T>`.
    State { ty: Box<Type> },
}

/// What stands in for an argument that is not given.
pub(crate) enum Default {
    /// The type's own default.
    OfType,
    /// The value of an expression.
    Value(Box<Expr>),
}

/// What the function returns.
pub(crate) enum Output {
    /// A value: the function cannot fail.
    Value(Type),
    /// A `Result`, with the type of success.
    Result(Type),
    /// A `Result` that does not name its types.
    Alias(Type),
}

/// Reads the task, and takes the attributes off the parameters, which only this macro knows.
pub(crate) fn task(options: TokenStream, function: &mut ItemFn) -> Result<Task> {
    let mut errors = Errors::default();
    let options = errors.catch(Options::parse(options));
    errors.catch(check_shape(&function.sig));
    let mut params = Vec::new();
    for input in &mut function.sig.inputs {
        // Each is read even after a mistake: the attributes have to go.
        params.extend(errors.catch(param(input)));
    }
    errors.catch(check_order(&params));
    for key in options.iter().flat_map(Options::keys) {
        errors.catch(key.check(&wire_names(&params)));
    }
    let output = errors.catch(output(&function.sig.output));
    let is_async = function.sig.asyncness.is_some();
    if let Some(options) = &options
        && let Some(blocking) = options.blocking
        && blocking == is_async
    {
        let text = if is_async {
            "an `async fn` must not block: take `async` away, or the option `blocking`"
        } else {
            "a plain `fn` may block: make it an `async fn`, or take the option `blocking` away"
        };
        errors.add(Error::new(function.sig.fn_token.span(), text));
    }
    match (errors.0, options, output) {
        (None, Some(options), Some(output)) => Ok(Task {
            options,
            conditions: conditions(&function.attrs),
            visibility: function.vis.clone(),
            ident: function.sig.ident.clone(),
            is_async,
            params,
            output,
        }),
        (Some(error), ..) => Err(error),
        (None, ..) => Err(Error::new(function.sig.span(), "not a task")),
    }
}

/// Every mistake so far, so that all are reported at once.
#[derive(std::default::Default)]
struct Errors(Option<Error>);

impl Errors {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn catch<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}

fn conditions(attrs: &[Attribute]) -> Vec<Attribute> {
    attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect()
}

fn check_shape(signature: &Signature) -> Result<()> {
    let generics = &signature.generics;
    if !generics.params.is_empty() {
        let text = "a task cannot be generic: a worker has to know its types";
        return Err(Error::new_spanned(&generics.params, text));
    }
    if let Some(word) = &signature.unsafety {
        return Err(Error::new(word.span(), "a task cannot be `unsafe`: messages call it"));
    }
    if let Some(dots) = &signature.variadic {
        return Err(Error::new(dots.span(), "a task cannot be variadic"));
    }
    Ok(())
}

fn param(input: &mut FnArg) -> Result<Param> {
    let input = match input {
        FnArg::Receiver(receiver) => {
            let text = "a task is a free function: pass `self` as `State<T>`";
            return Err(Error::new_spanned(receiver, text));
        }
        FnArg::Typed(input) => input,
    };
    let default = take_default(input)?;
    if let Some(special) = special(&input.ty) {
        return match default {
            None => Ok(special),
            Some(_) => {
                let text = "this parameter is not on the wire, so it has no default";
                Err(Error::new_spanned(&input, text))
            }
        };
    }
    check_owned(&input.ty)?;
    let Pat::Ident(pattern) = &*input.pat else {
        let text = "a parameter of a task needs a name, by which callers can pass it";
        return Err(Error::new_spanned(&input.pat, text));
    };
    if let Some((at, _)) = &pattern.subpat {
        return Err(Error::new(at.span(), "a parameter of a task is a plain name"));
    }
    Ok(Param::Wire { ident: pattern.ident.clone(), ty: input.ty.clone(), default })
}

/// Takes `#[default]` or `#[default(value)]` off the parameter.
fn take_default(input: &mut PatType) -> Result<Option<Default>> {
    let is_default = |attr: &Attribute| attr.path().is_ident("default");
    let (defaults, others): (Vec<_>, Vec<_>) = input.attrs.drain(..).partition(is_default);
    input.attrs = others;
    if let [_, second, ..] = defaults.as_slice() {
        return Err(Error::new(second.span(), "a parameter has one default"));
    }
    let Some(attr) = defaults.into_iter().next() else { return Ok(None) };
    match &attr.meta {
        Meta::Path(_) => Ok(Some(Default::OfType)),
        Meta::List(list) => Ok(Some(Default::Value(Box::new(list.parse_args()?)))),
        Meta::NameValue(pair) => {
            let value = pair.value.to_token_stream();
            Err(Error::new_spanned(&attr, format!("write `#[default({value})]`")))
        }
    }
}

/// Recognises `Context` and `State<T>` by the last segment of the path.
fn special(ty: &Type) -> Option<Param> {
    let Type::Path(path) = ty else { return None };
    let segment = path.path.segments.last()?;
    match (segment.ident.to_string().as_str(), &segment.arguments) {
        ("Context", PathArguments::None) => Some(Param::Context { span: ty.span() }),
        ("State", PathArguments::AngleBracketed(_)) => {
            first_type(&path.path).map(|ty| Param::State { ty: Box::new(ty) })
        }
        _ => None,
    }
}

/// The `T` of `Path<T, ..>`.
fn first_type(path: &Path) -> Option<Type> {
    let PathArguments::AngleBracketed(arguments) = &path.segments.last()?.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    })
}

/// Values come out of a message, so there is nothing that they could be borrowed from.
fn check_owned(ty: &Type) -> Result<()> {
    if let Type::ImplTrait(_) = ty {
        return Err(Error::new_spanned(ty, "a task cannot be generic: name the type"));
    }
    if !borrows(ty.to_token_stream()) {
        return Ok(());
    }
    let advice = match ty {
        Type::Reference(reference) => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => "take a `String`",
            Type::Path(path) if path.path.is_ident("Context") => "take `Context` itself",
            Type::Slice(_) => "take a `Vec`",
            _ => "take the value itself",
        },
        _ => "take owned values",
    };
    Err(Error::new_spanned(ty, format!("a task cannot borrow its arguments: {advice}")))
}

fn borrows(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Punct(punct) => punct.as_char() == '&',
        TokenTree::Group(group) => borrows(group.stream()),
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    })
}

/// As in Python, what has a default comes last.
fn check_order(params: &[Param]) -> Result<()> {
    let mut has_default = false;
    for param in params {
        if let Param::Wire { ident, default, .. } = param {
            if has_default && default.is_none() {
                let text = "a parameter without a default follows one with a default";
                return Err(Error::new(ident.span(), text));
            }
            has_default |= default.is_some();
        }
    }
    Ok(())
}

/// The names of the parameters that are on the wire, in order.
pub(crate) fn wire_names(params: &[Param]) -> Vec<String> {
    let names = params.iter().filter_map(|param| match param {
        Param::Wire { ident, .. } => Some(ident.unraw().to_string()),
        Param::Context { .. } | Param::State { .. } => None,
    });
    names.collect()
}

fn output(output: &ReturnType) -> Result<Output> {
    let ty = match output {
        ReturnType::Default => return Ok(Output::Value(syn::parse_quote!(()))),
        ReturnType::Type(_, ty) => &**ty,
    };
    if let Type::ImplTrait(_) = ty {
        return Err(Error::new_spanned(ty, "the result of a task needs a type with a name"));
    }
    if let Type::Path(path) = ty
        && let Some(segment) = path.path.segments.last()
        && (segment.ident == "Result" || segment.ident == "TaskResult")
    {
        let Some(ok) = first_type(&path.path) else { return Ok(Output::Alias(ty.clone())) };
        return check_returned(&ok).map(|()| Output::Result(ok));
    }
    check_returned(ty).map(|()| Output::Value(ty.clone()))
}

fn check_returned(ty: &Type) -> Result<()> {
    if borrows(ty.to_token_stream()) {
        let text = "the caller of a task cannot borrow from it: return an owned value";
        return Err(Error::new_spanned(ty, text));
    }
    Ok(())
}
