//! Texts of strangers, as they are shown.

/// A text that may be a peer's own, without letters that a terminal would act on, or by which the text around it would be
/// shown in another order.
pub(crate) fn printable(text: &str) -> String {
    let acts = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|letter| if acts(letter) { '\u{25af}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 12, "bad input".
    #[test]
    fn texts_of_peers_do_nothing_to_a_terminal() {
        for (text, shown) in [
            ("tandem/0.1", "tandem/0.1"),
            ("\u{1b}[31mred\r\n", "▯[31mred▯▯"),
            ("\u{9b}2J\u{7f}", "▯2J▯"),
            ("a\u{202e}b\u{2066}c\u{200b}", "a▯b▯c▯"),
            ("Zürich 東京", "Zürich 東京"),
        ] {
            assert_eq!(printable(text), shown, "{text:?}");
        }
    }
}
