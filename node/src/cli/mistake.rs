//! The message for a command line that cannot be used, with a guess at the meaning.

use clap::{
    CommandFactory,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{args::Cli, failure::Failure};
use crate::config::{MAX_SLIPS, slips};

impl From<&clap::Error> for Failure {
    /// The first paragraph of what the parser says and what may have been meant, in one line.
    fn from(error: &clap::Error) -> Self {
        let text = error.to_string();
        let paragraph = text.split("\n\n").next().unwrap_or(&text);
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        let text = words.join(" ");
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let help = command(error).map(|command| format!(" (try {command} --help)"));
        Self::Usage { text: format!("{text}{}{}", meant(error), help.unwrap_or_default()) }
    }
}

/// The command that was tried: the words of its usage before its flags and arguments. The parser leaves the usage out
/// where it says itself which value is right.
fn command(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return None };
    let usage = usage.to_string();
    let words = usage.split_whitespace().skip_while(|word| *word != "tandem");
    let is_name = |word: &&str| word.starts_with(|first: char| first.is_ascii_lowercase());
    Some(words.take_while(is_name).collect::<Vec<_>>().join(" "))
}

/// A guess at the meaning, as the end of a sentence.
fn meant(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let wrong = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let nearest = nearest_command(&wrong);
            nearest.map_or_else(String::new, |nearest| format!(", did you mean '{nearest}'?"))
        }
        ErrorKind::UnknownArgument => match text(ContextKind::SuggestedArg) {
            Some(nearest) => format!(", did you mean '{nearest}'?"),
            // Only a text that is to be sent may begin with a hyphen.
            None => match text(ContextKind::InvalidArg).filter(|wrong| wrong.starts_with('-')) {
                Some(wrong) if command(error).as_deref() == Some("tandem send") => {
                    format!(": if it is no flag, write it behind --, as in -- '{wrong}'")
                }
                _ => String::new(),
            },
        },
        _ => String::new(),
    }
}

/// The command whose name takes the fewest changes, if they are few enough for a slip.
fn nearest_command(wrong: &str) -> Option<String> {
    let program = Cli::command();
    let names = program.get_subcommands().filter(|command| !command.is_hide_set());
    let names = names.map(|command| command.get_name().to_owned());
    names.filter(|name| slips(wrong, name) <= MAX_SLIPS).min_by_key(|name| slips(wrong, name))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[track_caller]
    fn tells(line: &str, expected: &str) {
        let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
        assert_eq!(Failure::from(&error).line(), expected);
    }

    #[test]
    fn a_slip_on_the_command_line_is_told_in_one_line() {
        tells(
            "tandem rum",
            "unrecognized subcommand 'rum', did you mean 'run'? (try tandem --help)",
        );
        tells(
            "tandem seend",
            "unrecognized subcommand 'seend', did you mean 'send'? (try tandem --help)",
        );
        // Issue 8, 21: a word that is no slip gets no guess, and help is that of the command.
        tells("tandem version", "unrecognized subcommand 'version' (try tandem --help)");
        tells("tandem -v", "unexpected argument '-v' found (try tandem --help)");
        tells("tandem run x", "unexpected argument 'x' found (try tandem run --help)");
        tells(
            "tandem listen --count x",
            "invalid value 'x' for '--count <COUNT>': write a whole number from 1",
        );
        tells(
            "tandem demo --seconds x",
            "invalid value 'x' for '--seconds <SECONDS>': write a whole number from 1 to 86400",
        );
        tells(
            "tandem file put x",
            "the following required arguments were not provided: <PEER> (try tandem file put --help)",
        );
        tells(
            "tandem run --mod ws",
            "unexpected argument '--mod' found, did you mean '--mode'? (try tandem run --help)",
        );
        // Issue 8, 17: what looks like a flag is never sent.
        tells(
            "tandem send --tag TX --jsn",
            "unexpected argument '--jsn' found, did you mean '--json'? (try tandem send --help)",
        );
        tells(
            "tandem send --datadir x --tag TX hello",
            "unexpected argument '--datadir' found, did you mean '--data-dir'? (try tandem send --help)",
        );
        tells(
            "tandem send --tag TX -5",
            "unexpected argument '-5' found: if it is no flag, write it behind --, as in -- '-5' \
             (try tandem send --help)",
        );
        tells(
            "tandem http -d --include h:1",
            "a value is required for '--data <DATA>' but none was supplied",
        );
        tells(
            "tandem send --tag TXX x",
            "invalid value \"TXX\" for \"--tag <TAG>\": \"TXX\" is not a message tag: \
             a tag is two printable ASCII characters, such as TX",
        );
        tells(
            "tandem send hello",
            "the following required arguments were not provided: --tag <TAG> (try tandem send --help)",
        );
    }
}
