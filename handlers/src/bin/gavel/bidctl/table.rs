//! Tables that fit a terminal, and text that can do it no harm.
use std::io::{IsTerminal, stdout};
use terminal_size::{Width, terminal_size};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
use uuid::Uuid;

const GAP: &str = "  ";
/// A column is not made narrower than this.
const NARROWEST: usize = 8;

/// Text of others, for a terminal: what would move its cursor, change its colours, turn the text around or can't be
/// seen is shown by its number. Lines become one.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => shown.push(' '),
            c if c.is_control() || is_invisible(c) => shown.push_str(&c.escape_unicode().to_string()),
            c => shown.push(c),
        }
    }
    shown
}

/// Returns whether it has no width of its own and is no mark on a letter.
fn is_invisible(c: char) -> bool {
    let is_joiner = matches!(c, '\u{200C}' | '\u{200D}' | '\u{FE0F}');
    let is_format = matches!(c, '\u{AD}' | '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}');
    is_format && !is_joiner
}

/// The lines of a table, as wide as the terminal at most: what does not fit is cut, and the last columns are left out. As
/// wide as it takes where there is none.
pub(crate) fn lines(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let wide = stdout().is_terminal().then(terminal_size).flatten().map(|(Width(wide), _)| usize::from(wide));
    fitted(header, rows, wide)
}

fn fitted(header: &[&str], rows: &[Vec<String>], wide: Option<usize>) -> Vec<String> {
    let header: Vec<_> = header.iter().map(|name| (*name).to_owned()).collect();
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| harmless(cell)).collect()).collect();
    let cells = |column: usize| std::iter::once(&header).chain(&rows).filter_map(move |row| row.get(column));
    let mut widths: Vec<_> =
        (0..header.len()).map(|column| cells(column).map(|cell| cell.width()).max().unwrap_or_default()).collect();
    if let Some(wide) = wide {
        let is_whole =
            |column: usize| rows.iter().any(|row| row.get(column).is_some_and(|cell| is_of_no_use_cut(cell)));
        let whole: Vec<_> = (0..header.len()).map(is_whole).collect();
        let least: Vec<_> = widths
            .iter()
            .zip(&whole)
            .map(|(width, whole)| if *whole { *width } else { NARROWEST.min(*width) })
            .collect();
        widths.truncate(that_fit(&least, wide));
        narrow(&mut widths, &whole, wide);
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| padded(&cut(cell, *width), *width));
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    std::iter::once(&header).chain(&rows).map(line).collect()
}

/// Of an id, an amount or a time the beginning alone tells nobody anything.
fn is_of_no_use_cut(cell: &str) -> bool {
    Uuid::try_parse(cell).is_ok() || cell.starts_with(|c: char| c.is_ascii_digit())
}

/// How many columns fit, from the first on, each as narrow as it may be. The first always does.
fn that_fit(least: &[usize], wide: usize) -> usize {
    let mut taken = 0;
    let fits = |width: &&usize| {
        taken += **width + GAP.len();
        taken <= wide + GAP.len()
    };
    least.iter().take_while(fits).count().max(1)
}

/// Takes from the widest columns until they fit.
fn narrow(widths: &mut [usize], whole: &[bool], wide: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > wide {
        let others = widths.iter_mut().zip(whole).filter(|(_, is_whole)| !**is_whole).map(|(width, _)| width);
        let Some(widest) = others.max().filter(|width| **width > NARROWEST) else { return };
        *widest -= 1;
    }
}

/// So many columns of the terminal at most.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let (mut shown, mut taken) = (String::new(), 1);
    for character in text.chars() {
        taken += character.width().unwrap_or_default();
        if taken > columns {
            break;
        }
        shown.push(character);
    }
    shown + "…"
}

fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        vec![
            vec!["1".to_owned(), "真鍮のランプ".to_owned()],
            vec!["2".to_owned(), "A very long title indeed".to_owned()],
        ]
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(fitted(&["n", "title"], &rows()[..1], None), ["n  title", "1  真鍮のランプ"]);
        assert_eq!(padded("真鍮", 6).width(), 6);
        assert_eq!(cut("真鍮のランプ", 6), "真鍮…");
    }

    #[test]
    fn a_table_is_no_wider_than_its_terminal() {
        let lines = fitted(&["n", "title"], &rows(), Some(16));
        assert!(lines.iter().all(|line| line.width() <= 16), "{lines:?}");
        assert!(lines[2].ends_with('…'));
        let id = "0192f0c1-0000-7000-8000-000000000000".to_owned();
        let with_id = fitted(&["item", "title"], &[vec![id.clone(), "A very long title indeed".to_owned()]], Some(50));
        assert!(with_id[1].starts_with(&id) && with_id[1].ends_with('…'), "{with_id:?}");
        let row = [id.as_str(), "A lamp", "300.00 EUR", "open", "2026-11-28T20:31:13Z"].map(str::to_owned).to_vec();
        let header = ["item", "title", "price", "status", "ends"];
        for (wide, columns) in [(200, 5), (86, 5), (80, 4), (60, 3), (36, 1)] {
            let lines = fitted(&header, std::slice::from_ref(&row), Some(wide));
            assert!(lines.iter().all(|line| line.width() <= wide), "{wide}: {lines:?}");
            assert_eq!(lines[0].split_whitespace().count(), columns, "{wide}: {lines:?}");
            assert!(!lines[1].contains('…'), "{wide}: {lines:?}");
        }
        assert_eq!(fitted(&["n", "title"], &rows(), Some(1))[0], "n", "and never nothing");
    }

    #[test]
    fn nobodys_text_reaches_the_terminal_as_an_order() {
        assert_eq!(harmless("a\u{1b}[2Jb\u{202e}c\nd"), "a\\u{1b}[2Jb\\u{202e}c d");
        assert_eq!(harmless("Café 👨‍👩‍👧"), "Café 👨‍👩‍👧");
    }
}
