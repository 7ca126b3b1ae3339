//! Words that a shell may complete, for values that are judged elsewhere.

use std::{ffi::OsStr, str::FromStr};

use clap::{
    Arg, Command,
    builder::{PossibleValue, StringValueParser, TypedValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Offers words to shells and takes any text: a configuration file and the environment say the same, and
/// all of them are judged in one place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered(pub(crate) &'static [&'static str]);

impl TypedValueParser for Offered {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}

/// Offers tags to shells, and takes any tag: which there are is the network's to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfferedTags;

impl TypedValueParser for OfferedTags {
    type Value = gossip::Tag;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<gossip::Tag, clap::Error> {
        let text = StringValueParser::new().parse_ref(command, argument, value)?;
        gossip::Tag::from_str(text.trim()).map_err(|error| {
            let name = argument.map(ToString::to_string).unwrap_or_default();
            let text = format!("invalid value {text:?} for {name:?}: {error}");
            let mut error = clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command);
            error.insert(ContextKind::InvalidArg, ContextValue::String(name));
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let tags = ["AV", "PP", "SP", "TX", "VB"];
        Some(Box::new(tags.into_iter().map(PossibleValue::new)))
    }
}
