//! The files of certificates: that they can be read, and how long they are valid.
//!
//! # Invariants
//!
//! * Bytes of a file are read within their bounds: a file that is no certificate is told, and nothing else happens.

use std::{
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::Finding;
use crate::config::Settings;

const CHECK: &str = "certificates";

/// Days before the end at which it is time to renew. Chosen: as Let's Encrypt does.
const SOON_DAYS: i64 = 30;

/// The files that the settings name.
pub(super) fn files(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for files in settings.tls.iter().chain(&settings.tls_client) {
        findings.push(certificates(&files.cert));
        findings.push(key(&files.key));
    }
    let authorities: [&Option<PathBuf>; 2] = [&settings.tls_ca, &settings.tls_client_ca];
    findings.extend(authorities.into_iter().flatten().map(|file| certificates(file)));
    findings
}

fn key(path: &Path) -> Finding {
    match PrivateKeyDer::from_pem_file(path) {
        Ok(_) => Finding::ok(CHECK, format!("{} has a key", path.display())),
        Err(error) => {
            let says = format!("{}: {error}", path.display());
            Finding::failure(CHECK, says, "write the key there in PEM, readable for this user")
        }
    }
}

/// Looks at every certificate of a file; the one that ends first counts.
fn certificates(path: &Path) -> Finding {
    let (shown, renew) = (path.display(), "renew it; the node reads changed files by itself");
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = match read {
        Ok(certificates) if !certificates.is_empty() => certificates,
        Ok(_) => {
            let advice = "write the certificates there in PEM";
            return Finding::failure(CHECK, format!("{shown} has no certificate"), advice);
        }
        Err(error) => {
            let advice = "write the certificates there in PEM, readable for this user";
            return Finding::failure(CHECK, format!("{shown}: {error}"), advice);
        }
    };
    let ends = certificates.iter().map(|certificate| end_of(certificate));
    let Some(end) = ends.collect::<Option<Vec<i64>>>().and_then(|ends| ends.into_iter().min())
    else {
        let advice = "write the certificates there in PEM";
        return Finding::failure(
            CHECK,
            format!("{shown} has something else than certificates"),
            advice,
        );
    };
    let now = runtime::WallClock::system()
        .now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let days = (end - i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(86_400);
    match days {
        ..0 => Finding::failure(CHECK, format!("{shown} has expired {} days ago", -days), renew),
        0..SOON_DAYS => Finding::warning(CHECK, format!("{shown} expires in {days} days"), renew),
        _ => Finding::ok(CHECK, format!("{shown} is valid for {days} days")),
    }
}

/// The end of a certificate, in seconds of Unix time. Source: RFC 5280, 4.1.
fn end_of(certificate: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    // The version is optional; serial number, algorithm and issuer follow.
    if element(fields)?.0 == 0xA0 {
        fields = element(fields)?.2;
    }
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (tag, text, _) = element(element(validity)?.2)?;
    time_of(tag, std::str::from_utf8(text).ok()?)
}

/// Splits the first element off: its tag, its content and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        ..=0x7F => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// A time in seconds of Unix time: `YYMMDDhhmmssZ` (tag 0x17) or `YYYYMMDDhhmmssZ` (tag 0x18).
fn time_of(tag: u8, text: &str) -> Option<i64> {
    let digits =
        text.strip_suffix('Z').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (0x17, 12) => {
            let year = digits.get(..2)?.parse::<i64>().ok()?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, digits.get(2..)?)
        }
        (0x18, 14) => (digits.get(..4)?.parse().ok()?, digits.get(4..)?),
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (two(0)?, two(2)?);
    let seconds = two(4)? * 3_600 + two(6)? * 60 + two(8)?;
    // Days from the civil calendar; years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let of_era = year.rem_euclid(400);
    let days = of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1;
    Some((year.div_euclid(400) * 146_097 + days - 719_468) * 86_400 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_certificates_are_read() {
        for (tag, text, seconds) in [
            (0x17, "700101000000Z", Some(0)),
            (0x17, "260228235959Z", Some(1_772_323_199)),
            (0x17, "490101000000Z", Some(2_493_072_000)),
            (0x18, "20000301000000Z", Some(951_868_800)),
            (0x18, "20500101000000Z", Some(2_524_608_000)),
            (0x18, "700101000000Z", None),
            (0x17, "700101000000", None),
            (0x17, "70010100000aZ", None),
        ] {
            assert_eq!(time_of(tag, text), seconds, "{text}");
        }
    }

    #[test]
    fn garbage_is_no_certificate() {
        for bytes in
            [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00", &[0x30; 64]]
        {
            assert_eq!(end_of(bytes), None);
        }
    }
}
