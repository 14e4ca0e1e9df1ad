//! Binds positional and keyword arguments to parameters, as a Python function would.
//!
//! Pure. The messages are CPython's, word for word, because Python callers know them.

use serde::de::DeserializeOwned;

use super::{Param, TaskError};
use crate::protocol::{Map, Value, from_value};

/// Arguments in the order of the parameters; `None` where a default stands in.
#[derive(Debug)]
pub struct Arguments {
    function: &'static str,
    params: &'static [Param],
    slots: Vec<Option<Value>>,
}

impl Arguments {
    /// Gives each parameter of `function` its argument.
    ///
    /// Fails with Python's `TypeError` if an argument is missing, unknown, given twice or too
    /// many.
    pub fn bind(
        function: &'static str,
        params: &'static [Param],
        args: Vec<Value>,
        kwargs: Map,
    ) -> Result<Self, TaskError> {
        let given = args.len();
        let mut slots: Vec<Option<Value>> = args.into_iter().map(Some).collect();
        slots.resize_with(params.len(), || None);
        let fail = |problem: String| Err(TaskError::type_error(format!("{function}() {problem}")));

        for (name, value) in kwargs {
            match params.iter().position(|param| param.name == name) {
                None => return fail(format!("got an unexpected keyword argument '{name}'")),
                Some(at) if at < given => {
                    return fail(format!("got multiple values for argument '{name}'"));
                }
                Some(at) => {
                    if let Some(slot) = slots.get_mut(at) {
                        *slot = Some(value);
                    }
                }
            }
        }
        if given > params.len() {
            return fail(too_many(params, given));
        }
        let unset = params.iter().zip(&slots).filter(|(_, slot)| slot.is_none());
        let missing: Vec<&str> =
            unset.filter(|(param, _)| !param.has_default).map(|(param, _)| param.name).collect();
        if !missing.is_empty() {
            let plural = if missing.len() == 1 { "" } else { "s" };
            let count = missing.len();
            let names = enumerate(&missing);
            return fail(format!("missing {count} required positional argument{plural}: {names}"));
        }
        Ok(Self { function, params, slots })
    }

    /// The argument of the parameter at `at`, as a `T`.
    pub fn take<T: DeserializeOwned>(&mut self, at: usize) -> Result<T, TaskError> {
        let value = self.slots.get_mut(at).and_then(Option::take);
        self.read(at, value.unwrap_or_default())
    }

    /// The argument of the parameter at `at`, or the parameter's default.
    pub fn take_or<T: DeserializeOwned>(
        &mut self,
        at: usize,
        default: impl FnOnce() -> T,
    ) -> Result<T, TaskError> {
        match self.slots.get_mut(at).and_then(Option::take) {
            Some(value) => self.read(at, value),
            None => Ok(default()),
        }
    }

    fn read<T: DeserializeOwned>(&self, at: usize, value: Value) -> Result<T, TaskError> {
        from_value(value).map_err(|error| {
            let function = self.function;
            let name = self.params.get(at).map_or("?", |param| param.name);
            let path = error.path();
            let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
            let problem = error.problem();
            TaskError::type_error(format!("{function}() argument '{name}{dot}{path}': {problem}"))
        })
    }
}

/// Python's sentence for `given` positional arguments where there are fewer parameters.
fn too_many(params: &[Param], given: usize) -> String {
    let most = params.len();
    let least = params.iter().filter(|param| !param.has_default).count();
    let takes = if least == most { most.to_string() } else { format!("from {least} to {most}") };
    let plural = if least == most && most == 1 { "" } else { "s" };
    let was = if given == 1 { "was" } else { "were" };
    format!("takes {takes} positional argument{plural} but {given} {was} given")
}

/// `'a'`, `'a' and 'b'`, `'a', 'b', and 'c'`.
fn enumerate(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    match quoted.as_slice() {
        [first, second] => format!("{first} and {second}"),
        [start @ .., last] if !start.is_empty() => format!("{}, and {last}", start.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskErrorKind;

    const fn required(name: &'static str) -> Param {
        Param { name, has_default: false }
    }

    const fn optional(name: &'static str) -> Param {
        Param { name, has_default: true }
    }

    const NONE: &[Param] = &[];
    const ONE: &[Param] = &[required("x")];
    const TWO: &[Param] = &[required("x"), required("y")];
    const THREE: &[Param] = &[required("a"), required("b"), required("c")];
    const LAST_OPTIONAL: &[Param] = &[required("x"), optional("y")];
    const ALL_OPTIONAL: &[Param] = &[optional("x")];

    fn ints(numbers: &[i64]) -> Vec<Value> {
        numbers.iter().copied().map(Value::Int).collect()
    }

    fn bind(
        params: &'static [Param],
        args: &[i64],
        kwargs: &[(&'static str, i64)],
    ) -> Result<Arguments, TaskError> {
        Arguments::bind("f", params, ints(args), kwargs.iter().copied().collect())
    }

    #[test]
    fn arguments_bind_by_position_by_name_and_by_default() {
        #[track_caller]
        fn check(
            params: &'static [Param],
            args: &[i64],
            kwargs: &[(&'static str, i64)],
            bound: &[i64],
        ) {
            let mut arguments = bind(params, args, kwargs).unwrap();
            let read = |at| arguments.take_or(at, || -1_i64).unwrap();
            assert_eq!((0..params.len()).map(read).collect::<Vec<_>>(), bound);
        }
        check(NONE, &[], &[], &[]);
        check(TWO, &[1, 2], &[], &[1, 2]);
        check(TWO, &[1], &[("y", 2)], &[1, 2]);
        check(TWO, &[], &[("y", 2), ("x", 1)], &[1, 2]);
        check(LAST_OPTIONAL, &[1], &[], &[1, -1]);
        check(LAST_OPTIONAL, &[1, 2], &[], &[1, 2]);
        check(LAST_OPTIONAL, &[], &[("x", 1)], &[1, -1]);
        check(LAST_OPTIONAL, &[], &[("x", 1), ("x", 3)], &[3, -1]);
    }

    #[test]
    fn wrong_arguments_fail_with_the_words_of_python() {
        // Each row was checked against CPython 3.11.
        #[track_caller]
        fn check(
            params: &'static [Param],
            args: &[i64],
            kwargs: &[(&'static str, i64)],
            text: &str,
        ) {
            let error = bind(params, args, kwargs).unwrap_err();
            assert_eq!(error.to_string(), format!("TypeError: f() {text}"));
            assert_eq!(error.kind(), TaskErrorKind::Permanent);
        }
        check(TWO, &[1, 2, 3], &[], "takes 2 positional arguments but 3 were given");
        check(ONE, &[1, 2], &[], "takes 1 positional argument but 2 were given");
        check(NONE, &[1], &[], "takes 0 positional arguments but 1 was given");
        check(
            LAST_OPTIONAL,
            &[1, 2, 3],
            &[],
            "takes from 1 to 2 positional arguments but 3 were given",
        );
        check(
            ALL_OPTIONAL,
            &[1, 2],
            &[],
            "takes from 0 to 1 positional arguments but 2 were given",
        );
        check(TWO, &[1], &[], "missing 1 required positional argument: 'y'");
        check(TWO, &[], &[], "missing 2 required positional arguments: 'x' and 'y'");
        check(THREE, &[], &[], "missing 3 required positional arguments: 'a', 'b', and 'c'");
        check(THREE, &[], &[("b", 1)], "missing 2 required positional arguments: 'a' and 'c'");
        check(LAST_OPTIONAL, &[], &[("y", 1)], "missing 1 required positional argument: 'x'");
        check(TWO, &[1, 2], &[("x", 3)], "got multiple values for argument 'x'");
        check(TWO, &[1, 2], &[("z", 3)], "got an unexpected keyword argument 'z'");
        check(TWO, &[1, 2, 3], &[("x", 1)], "got multiple values for argument 'x'");
        check(TWO, &[1, 2, 3], &[("z", 1)], "got an unexpected keyword argument 'z'");
    }

    #[test]
    fn a_wrong_type_names_the_parameter_and_the_place_in_it() {
        #[track_caller]
        fn check<T: DeserializeOwned + std::fmt::Debug>(value: Value, text: &str) {
            let mut arguments = Arguments::bind("f", ONE, vec![value], Map::new()).unwrap();
            let error = arguments.take::<T>(0).unwrap_err();
            assert_eq!(error.to_string(), format!("TypeError: f() argument {text}"));
        }
        check::<i64>("a".into(), "'x': expected i64, got str");
        check::<Vec<i64>>(Value::Array(vec!["a".into()]), "'x[0]': expected i64, got str");
        let map = Map::from_iter([("k", "v")]);
        check::<std::collections::HashMap<String, i64>>(
            Value::Map(map),
            "'x.k': expected i64, got str",
        );
    }
}
