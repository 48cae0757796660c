//! Flags as data, and their parsing by the rules of Docker's command line.
//!
//! A command declares its flags once, with [`flags!`]: a struct with a typed field a flag. Help,
//! man pages and completions are made from the same declaration. The syntax is that of Go's
//! pflag: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-n=value`, `-it`, `--flag` and
//! `--flag=false` for a switch, `--` ends the flags; the last of several values counts unless
//! the flag is a list. Where a command runs another program, the first word that is no flag ends
//! the flags.

use std::collections::BTreeMap;
use std::time::Duration;

/// What is known of one flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    /// A second long name, which help does not show.
    pub(crate) alias: Option<&'static str>,
    /// The kind of value, as help shows it. Empty for a switch.
    pub(crate) kind: &'static str,
    pub(crate) help: &'static str,
}

impl Flag {
    fn is_switch(&self) -> bool {
        self.kind.is_empty()
    }

    /// `-m, --memory`, as errors name a flag.
    fn display(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}

/// A type that a flag's text can be read into. A value that occurs again replaces or extends.
pub(crate) trait FlagValue {
    /// Shown in help after the flag's name; empty for a switch.
    const KIND: &'static str;
    /// Reads one occurrence. The error says what is wrong with the text.
    fn set(&mut self, text: &str) -> Result<(), String>;
}

/// A struct made by [`flags!`].
pub(crate) trait FlagSet: Default {
    const FLAGS: &'static [Flag];
    fn set(&mut self, index: usize, text: &str) -> Result<(), String>;
}

/// Declares a struct of flags. Each line: `field: Type, ['s'] "long" ("alias"), "help";` where
/// the short name and the alias may be left out.
macro_rules! flags {
    ($(#[$doc:meta])* $name:ident { $(
        $field:ident : $type:ty, $([$short:literal])? $long:literal $(($alias:literal))?,
        $help:literal;
    )* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name { $( pub(crate) $field: $type, )* }

        impl $crate::flags::FlagSet for $name {
            const FLAGS: &'static [$crate::flags::Flag] = &[$(
                $crate::flags::Flag {
                    long: $long,
                    short: $crate::flags::first(&[$($short)?]),
                    alias: $crate::flags::first(&[$($alias)?]),
                    kind: <$type as $crate::flags::FlagValue>::KIND,
                    help: $help,
                },
            )*];

            #[allow(unused_variables, unused_mut, unused_assignments)]
            fn set(&mut self, index: usize, text: &str) -> Result<(), String> {
                let mut next = 0;
                $(
                    if index == next {
                        return $crate::flags::FlagValue::set(&mut self.$field, text);
                    }
                    next += 1;
                )*
                Ok(())
            }
        }
    };
}
pub(crate) use flags;

/// The first of none or one: how the macro turns an optional literal into an `Option`.
pub(crate) const fn first<T: Copy>(values: &[T]) -> Option<T> {
    if values.is_empty() { None } else { Some(values[0]) }
}

/// What parsing found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<F> {
    /// `--help` was given.
    Help,
    /// The flags and the words that are none.
    Flags(F, Vec<String>),
}

/// Reads `args` into a new flag set. With `interspersed`, flags may follow other words.
pub(crate) fn parse<F: FlagSet>(args: &[String], interspersed: bool) -> Result<Parsed<F>, String> {
    let mut flags = F::default();
    let mut words = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            words.extend(args.by_ref().cloned());
        } else if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            if name.is_empty() || name.starts_with('-') {
                return Err(format!("bad flag syntax: {arg}"));
            }
            let found =
                F::FLAGS.iter().position(|flag| flag.long == name || flag.alias == Some(name));
            let Some(index) = found else {
                if name == "help" {
                    return Ok(Parsed::Help);
                }
                return Err(format!("unknown flag: --{name}"));
            };
            let value = match value {
                Some(value) => value,
                None if F::FLAGS[index].is_switch() => "true",
                None => args.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
            };
            assign(&mut flags, index, value)?;
        } else if arg.len() > 1 && arg.starts_with('-') {
            if parse_short(&mut flags, &arg[1..], &mut args)? {
                return Ok(Parsed::Help);
            }
        } else {
            words.push(arg.clone());
            if !interspersed {
                words.extend(args.by_ref().cloned());
            }
        }
    }
    Ok(Parsed::Flags(flags, words))
}

/// Reads one group of short flags. Returns whether help was asked for.
fn parse_short<F: FlagSet>(
    flags: &mut F,
    group: &str,
    args: &mut std::slice::Iter<'_, String>,
) -> Result<bool, String> {
    let mut rest = group;
    while let Some(short) = rest.chars().next() {
        rest = &rest[short.len_utf8()..];
        let Some(index) = F::FLAGS.iter().position(|flag| flag.short == Some(short)) else {
            if short == 'h' {
                return Ok(true);
            }
            return Err(format!("unknown shorthand flag: '{short}' in -{group}"));
        };
        if let Some(value) = rest.strip_prefix('=') {
            assign(flags, index, value)?;
            return Ok(false);
        }
        if F::FLAGS[index].is_switch() {
            assign(flags, index, "true")?;
            continue;
        }
        let value = if rest.is_empty() {
            args.next().ok_or_else(|| format!("flag needs an argument: '{short}' in -{group}"))?
        } else {
            rest
        };
        assign(flags, index, value)?;
        return Ok(false);
    }
    Ok(false)
}

fn assign<F: FlagSet>(flags: &mut F, index: usize, value: &str) -> Result<(), String> {
    flags.set(index, value).map_err(|reason| {
        format!("invalid argument {value:?} for \"{}\" flag: {reason}", F::FLAGS[index].display())
    })
}

impl FlagValue for bool {
    const KIND: &'static str = "";
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => return Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
        };
        Ok(())
    }
}

impl FlagValue for Option<bool> {
    const KIND: &'static str = "";
    fn set(&mut self, text: &str) -> Result<(), String> {
        let mut value = false;
        value.set(text)?;
        *self = Some(value);
        Ok(())
    }
}

impl FlagValue for String {
    const KIND: &'static str = "string";
    fn set(&mut self, text: &str) -> Result<(), String> {
        text.clone_into(self);
        Ok(())
    }
}

impl FlagValue for Option<String> {
    const KIND: &'static str = "string";
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = Some(text.to_owned());
        Ok(())
    }
}

impl FlagValue for Vec<String> {
    const KIND: &'static str = "list";
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.push(text.to_owned());
        Ok(())
    }
}

macro_rules! number_flag {
    ($type:ty, $kind:literal, $parser:literal) => {
        impl FlagValue for $type {
            const KIND: &'static str = $kind;
            fn set(&mut self, text: &str) -> Result<(), String> {
                *self = parse_number(text, $parser)?;
                Ok(())
            }
        }
        impl FlagValue for Option<$type> {
            const KIND: &'static str = $kind;
            fn set(&mut self, text: &str) -> Result<(), String> {
                *self = Some(parse_number(text, $parser)?);
                Ok(())
            }
        }
    };
}
number_flag!(i64, "int", "ParseInt");
number_flag!(u64, "uint", "ParseUint");
number_flag!(u16, "uint16", "ParseUint");

/// Go reads `0x`, `0o` and `0b` forms as well.
fn parse_number<T: TryFrom<i128>>(text: &str, parser: &str) -> Result<T, String> {
    let error = |reason| format!("strconv.{parser}: parsing {text:?}: {reason}");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(error("invalid syntax"));
    }
    let value = i128::from_str_radix(digits, radix).map_err(|_| error("value out of range"))?;
    T::try_from(if negative { -value } else { value }).map_err(|_| error("value out of range"))
}

/// A span of time in Go's syntax, which may be negative (and is then refused later, by name).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GoDuration {
    /// Whether the text began with a minus sign and is not zero.
    pub(crate) negative: bool,
    pub(crate) span: Duration,
}

impl GoDuration {
    /// Nanoseconds, as the API wants them.
    pub(crate) fn nanoseconds(self) -> i64 {
        i64::try_from(self.span.as_nanos()).unwrap_or(i64::MAX)
    }
}

impl FlagValue for GoDuration {
    const KIND: &'static str = "duration";
    fn set(&mut self, text: &str) -> Result<(), String> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let span = silo_types::duration::parse_go(digits).ok_or_else(|| {
            if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !text.is_empty() {
                format!("time: missing unit in duration {text:?}")
            } else {
                format!("time: invalid duration {text:?}")
            }
        })?;
        *self = Self { negative: negative && span > Duration::ZERO, span };
        Ok(())
    }
}

/// `--filter name=value`: values by name, as the API wants them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Filters(pub(crate) BTreeMap<String, BTreeMap<String, bool>>);

impl Filters {
    /// Adds one filter.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().insert(value.to_owned(), true);
    }

    /// The query parameter's value; `None` when there are no filters.
    pub(crate) fn query(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| serde_json::json!(self.0).to_string())
    }
}

impl FlagValue for Filters {
    const KIND: &'static str = "filter";
    fn set(&mut self, text: &str) -> Result<(), String> {
        if text.is_empty() {
            return Ok(());
        }
        let (name, value) =
            text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
        self.add(&name.trim().to_lowercase(), value.trim());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    flags! {
        /// Flags for these tests.
        Sample {
            detach: bool, ['d'] "detach", "Detach";
            tty: bool, ['t'] "tty", "Terminal";
            env: Vec<String>, ['e'] "env", "Environment";
            hostname: String, ['h'] "hostname", "Name";
            network: Vec<String>, "network" ("net"), "Network";
            memory: i64, ['m'] "memory", "Memory";
            init: Option<bool>, "init", "Init";
        }
    }

    fn run(args: &[&str], interspersed: bool) -> Result<Parsed<Sample>, String> {
        parse(&args.iter().map(ToString::to_string).collect::<Vec<_>>(), interspersed)
    }

    fn flags(args: &[&str]) -> (Sample, Vec<String>) {
        match run(args, false) {
            Ok(Parsed::Flags(flags, words)) => (flags, words),
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[test]
    fn every_form_of_a_flag() {
        let (sample, words) = flags(&[
            "-dt",
            "-eA=1",
            "-e",
            "B",
            "-e=C",
            "--env",
            "D=4",
            "--env=E=5",
            "-hx",
            "--net",
            "n1",
            "--network=n2",
            "-m",
            "-1",
            "--init=false",
            "image",
            "-d",
            "--",
            "x",
        ]);
        assert!(sample.detach && sample.tty);
        assert_eq!(sample.env, ["A=1", "B", "C", "D=4", "E=5"]);
        assert_eq!(sample.hostname, "x");
        assert_eq!(sample.network, ["n1", "n2"]);
        assert_eq!(sample.memory, -1);
        assert_eq!(sample.init, Some(false));
        assert_eq!(words, ["image", "-d", "--", "x"]);
    }

    #[test]
    fn dashes() {
        let (sample, words) = flags(&["--", "-d", "image"]);
        assert!(!sample.detach);
        assert_eq!(words, ["-d", "image"]);
        assert_eq!(flags(&["-", "-d"]).1, ["-", "-d"]);
        assert!(flags(&["--detach=false"]).1.is_empty());
    }

    #[test]
    fn interspersed_flags() {
        let Ok(Parsed::Flags(sample, words)) = run(&["a", "-d", "b", "--", "-t"], true) else {
            panic!("not parsed")
        };
        assert!(sample.detach && !sample.tty);
        assert_eq!(words, ["a", "b", "-t"]);
    }

    #[test]
    fn errors_have_pflags_words() {
        for (args, message) in [
            (&["--foo"][..], "unknown flag: --foo"),
            (&["-z"], "unknown shorthand flag: 'z' in -z"),
            (&["-dz"], "unknown shorthand flag: 'z' in -dz"),
            (&["--env"], "flag needs an argument: --env"),
            (&["-de"], "flag needs an argument: 'e' in -de"),
            (&["--=x"], "bad flag syntax: --=x"),
            (&["---x"], "bad flag syntax: ---x"),
            (
                &["--detach=x"],
                "invalid argument \"x\" for \"-d, --detach\" flag: strconv.ParseBool: parsing \
                 \"x\": invalid syntax",
            ),
            (
                &["-m", "x"],
                "invalid argument \"x\" for \"-m, --memory\" flag: strconv.ParseInt: parsing \
                 \"x\": invalid syntax",
            ),
            (
                &["-m", "99999999999999999999"],
                "invalid argument \"99999999999999999999\" for \"-m, --memory\" flag: \
                 strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
            ),
        ] {
            assert_eq!(run(args, false).unwrap_err(), message, "{args:?}");
        }
    }

    #[test]
    fn help_unless_the_flag_is_taken() {
        assert!(matches!(run(&["--help"], false), Ok(Parsed::Help)));
        assert!(run(&["-h"], false).is_err());
        assert!(matches!(run(&["image", "--help"], false), Ok(Parsed::Flags(..))));
    }

    #[test]
    fn filters_and_durations() {
        let mut filters = Filters::default();
        filters.set("Name = x ").unwrap();
        filters.set("name=y").unwrap();
        filters.set("").unwrap();
        assert_eq!(filters.query().unwrap(), r#"{"name":{"x":true,"y":true}}"#);
        assert!(filters.set("x").is_err());
        let mut duration = GoDuration::default();
        duration.set("1m30s").unwrap();
        assert_eq!(duration.nanoseconds(), 90_000_000_000);
        duration.set("-1s").unwrap();
        assert!(duration.negative);
        assert_eq!(duration.set("5").unwrap_err(), "time: missing unit in duration \"5\"");
    }
}
