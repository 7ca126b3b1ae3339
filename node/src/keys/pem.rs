//! The content of a key file, written by this program or by another.
//!
//! # Invariants
//!
//! * The additions of other tools around a key or within it change nothing: blank lines, line ends of other
//!   systems, a byte order mark, text and further blocks before and behind.
//! * A text that is no key is refused with the kind of text that it is.

use gossip::Keypair;

/// Letters in a line of base64. Source: RFC 7468, section 3.
const LINE: usize = 64;

/// The label of the block that holds a key.
const LABEL: &str = "PRIVATE KEY";

/// Why a text holds no key that can be used, as the end of a sentence about the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoKey(pub(super) &'static str);

/// The first key in a file.
pub(super) fn key(bytes: &[u8]) -> Result<Keypair, NoKey> {
    let text = std::str::from_utf8(bytes).map_err(|_| NoKey("is no text, so no PEM file"))?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Err(NoKey("is empty"));
    }
    let Some(body) = body(text) else { return Err(other_kind(text)) };
    let lines: Vec<&str> =
        body.as_bytes().chunks(LINE).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let pem = format!("-----BEGIN {LABEL}-----\n{}\n-----END {LABEL}-----\n", lines.join("\n"));
    Keypair::from_pem(&pem)
        .map_err(|_| NoKey("holds a key of another kind than Ed25519, or a damaged one"))
}

/// The base64 of the first block of the right label, without white space.
fn body(text: &str) -> Option<String> {
    let (begin, end) = (format!("-----BEGIN {LABEL}-----"), format!("-----END {LABEL}-----"));
    let (_, rest) = text.split_once(&begin)?;
    let (body, _) = rest.split_once(&end)?;
    Some(body.chars().filter(|letter| letter.is_ascii() && !letter.is_whitespace()).collect())
}

/// A description of a text that holds no such block.
fn other_kind(text: &str) -> NoKey {
    let has = |label: &str| text.contains(&format!("-----BEGIN {label}-----"));
    NoKey(if has("ENCRYPTED PRIVATE KEY") {
        "holds an encrypted key: decrypt it with openssl pkey -in FILE -out NEW"
    } else if has("OPENSSH PRIVATE KEY") {
        "holds a key for SSH, not one in PKCS#8"
    } else if has("EC PRIVATE KEY") || has("RSA PRIVATE KEY") {
        "holds a key of another kind than Ed25519"
    } else if has("PUBLIC KEY") || has("CERTIFICATE") {
        "holds the public part of a key, not the secret one"
    } else if has(LABEL) {
        "breaks off within the key"
    } else {
        "is no PKCS#8 PEM file: it has no line -----BEGIN PRIVATE KEY-----"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(bytes: &[u8]) -> Result<[u8; 32], NoKey> {
        key(bytes).map(|key| key.seed())
    }

    /// Written by OpenSSL 3.0, `openssl genpkey -algorithm ed25519`.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIMbZo+xgQdnl6bAgKp1m2fbNuGHedjG2rEECD2ghT8dL\n\
        -----END PRIVATE KEY-----\n";

    // Issue 8, 7.
    #[test]
    fn text_that_other_tools_write_around_a_key_changes_nothing() {
        let expected = seed(KEY.as_bytes()).unwrap();
        for text in [
            format!("{KEY}\n"),
            format!("{KEY}\n\n  \n"),
            format!("\n{KEY}"),
            format!("\u{feff}{KEY}"),
            KEY.replace('\n', "\r\n"),
            KEY.trim_end().to_owned(),
            KEY.replace("MC4C", "MC4C\n"),
            KEY.replace('\n', " \n"),
            format!("Bag Attributes\n    friendlyName: node\n{KEY}"),
            format!("{KEY}-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
            format!("# my node\n{KEY}\n{KEY}"),
        ] {
            assert_eq!(seed(text.as_bytes()), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_key_is_called_what_it_is() {
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        for (text, expected) in [
            (String::new(), "is empty"),
            ("\n \n".to_owned(), "is empty"),
            ("hello".to_owned(), "is no PKCS#8 PEM file"),
            (block("PUBLIC KEY"), "holds the public part"),
            (block("OPENSSH PRIVATE KEY"), "holds a key for SSH"),
            (block("ENCRYPTED PRIVATE KEY"), "holds an encrypted key: decrypt it with openssl"),
            (block("RSA PRIVATE KEY"), "holds a key of another kind"),
            (block("PRIVATE KEY"), "holds a key of another kind than Ed25519, or a damaged one"),
            (KEY[..60].to_owned(), "breaks off within the key"),
        ] {
            let NoKey(told) = seed(text.as_bytes()).unwrap_err();
            assert!(told.starts_with(expected), "{text:?}: {told}");
        }
        assert_eq!(seed(b"\xff\x00"), Err(NoKey("is no text, so no PEM file")));
    }
}
