//! Text that people show each other. What it may hold is a matter of Unicode's properties, never of a list of our own:
//! a character that can't be seen, that turns the text around it, or that looks like another one is for deceiving.
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, EmojiModifier, ExtendedPictographic, GeneralCategory, Script},
};
use std::ops::RangeInclusive;

/// The longest run of marks on one character. Vietnamese, Thai and pointed Hebrew need up to three.
const MOST_MARKS: usize = 4;
/// Joins emoji to one, and letters of some scripts.
const JOINER: char = '\u{200D}';
/// Keeps letters of some scripts apart.
const NON_JOINER: char = '\u{200C}';
/// Asks for a character's picture.
const AS_PICTURE: char = '\u{FE0F}';
/// A cell of Braille without dots.
const BLANK_CELL: char = '\u{2800}';
/// Characters that are no letters, and whose picture is blank or stands for one that is missing: Unicode has no property for
/// them.
const EMPTY_PICTURES: [char; 5] = ['\u{1D159}', '\u{13441}', '\u{FFFC}', '\u{FFFD}', '\u{2422}'];
/// Letters and digits for formulas, which pass for those of the Latin alphabet.
const FOR_FORMULAS: RangeInclusive<char> = '\u{1D400}'..='\u{1D7FF}';
/// Letters and digits as wide as those of Chinese and Japanese, beside which they stand.
const WIDE: RangeInclusive<char> = '\u{FF10}'..='\u{FF5A}';
/// What the sign for micro is in compatibility forms. Behind a digit it is no letter.
const MU: char = '\u{03BC}';
/// What the sign for ohm is in NFC, a Greek letter. It passes for none of another script.
const OHM: char = '\u{03A9}';

/// What is wrong with a text, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// It is too long, or there is nothing to be seen in it.
    #[error("has {given} characters; allowed: 1 to {most}")]
    Length {
        /// Its length in characters, without what can't be seen at its ends.
        given: usize,
        /// The most.
        most: usize,
    },
    /// A character that nobody sees, or that changes how others are seen.
    #[error("has U+{:04X}, {what}; allowed: characters that can be seen, and spaces", u32::from(*character))]
    Character {
        /// Which.
        character: char,
        /// What kind of character that is.
        what: &'static str,
    },
    /// More marks in a row than any language puts on one letter.
    #[error("has more than {MOST_MARKS} marks on one character")]
    Marks,
    /// Letters that look alike, from several scripts in one word.
    #[error("has the word {word:?} in several scripts; allowed: one script a word, since their letters look alike")]
    Scripts {
        /// Which.
        word: String,
    },
}

/// Checks a text of up to `most` characters and brings it into one form: composed (NFC), without spaces at its ends,
/// any other space a single U+0020.
pub fn shown_text(given: &str, most: usize) -> Result<String, InvalidText> {
    let text = one_form(given);
    let chars: Vec<_> = text.chars().collect();
    check_length(&chars, most)?;
    check_characters(&chars)?;
    check_marks(&chars)?;
    check_scripts(&text)?;
    Ok(text)
}

fn one_form(given: &str) -> String {
    let composed = ComposingNormalizerBorrowed::new_nfc().normalize(given);
    let words = composed
        .trim_matches(|c: char| c.is_whitespace() || c == BLANK_CELL)
        .split(|c| category(c) == GeneralCategory::SpaceSeparator)
        .filter(|w| !w.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

fn check_length(chars: &[char], most: usize) -> Result<(), InvalidText> {
    let is_seen = |c: &char| *c != ' ' && *c != BLANK_CELL && !is_mark(*c);
    match chars.len() {
        given if given > most => Err(InvalidText::Length { given, most }),
        // What is there but can't be seen is named below, if there is a better word for it.
        _ if chars.iter().all(|c| !is_seen(c)) => Err(InvalidText::Length { given: 0, most }),
        _ => Ok(()),
    }
}

fn check_characters(chars: &[char]) -> Result<(), InvalidText> {
    for (place, character) in chars.iter().copied().enumerate() {
        let before = place.checked_sub(1).map(|place| chars[place]);
        let after = chars.get(place + 1).copied();
        let what = match category(character) {
            GeneralCategory::Control => "a control character",
            GeneralCategory::Unassigned => "not assigned to any character",
            GeneralCategory::PrivateUse | GeneralCategory::Surrogate => "for private use",
            GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => "the end of a line",
            _ if EMPTY_PICTURES.contains(&character) => "a picture of nothing",
            _ if FOR_FORMULAS.contains(&character) => "a letter for formulas",
            _ if is_mark(character) && before.is_none_or(|before| before == ' ') => "a mark on nothing",
            GeneralCategory::Format if !fits(character, before, after) => "an invisible character of format",
            _ if is_ignorable(character) && !fits(character, before, after) => "an invisible character",
            _ => continue,
        };
        return Err(InvalidText::Character { character, what });
    }
    Ok(())
}

/// Returns whether a character that can't be seen does between these what it is for.
fn fits(character: char, before: Option<char>, after: Option<char>) -> bool {
    let (Some(before), after) = (before, after.unwrap_or(' ')) else { return false };
    match character {
        AS_PICTURE => is_picture(before) || matches!(before, '0'..='9' | '#' | '*'),
        JOINER if is_picture(before) || before == AS_PICTURE || is_modifier(before) => is_picture(after),
        JOINER | NON_JOINER => (joins(before) || is_joining_mark(before)) && joins(after),
        _ => false,
    }
}

fn check_marks(chars: &[char]) -> Result<(), InvalidText> {
    let mut row = 0;
    for character in chars {
        // What can't be seen between two marks does not part them.
        row = match *character {
            c if is_mark(c) => row + 1,
            JOINER | NON_JOINER | AS_PICTURE => row,
            _ => 0,
        };
        if row > MOST_MARKS {
            return Err(InvalidText::Marks);
        }
    }
    Ok(())
}

/// The letters of Latin, Greek, Cyrillic and a few scripts made after them are those that pass for each other.
fn check_scripts(text: &str) -> Result<(), InvalidText> {
    for word in text.split(|c: char| !c.is_alphanumeric() && !is_mark(c)) {
        let mut alike: Vec<_> = letters(word).map(script).filter(|script| is_alike(*script)).collect();
        alike.dedup();
        let is_partly_wide = word.contains(|c| WIDE.contains(&c)) && word.contains(|c: char| c.is_ascii_alphanumeric());
        if alike.len() > 1 || is_partly_wide {
            return Err(InvalidText::Scripts { word: word.to_owned() });
        }
    }
    Ok(())
}

/// The letters of a word, without what is a unit.
fn letters(word: &str) -> impl Iterator<Item = char> {
    let before = std::iter::once(' ').chain(word.chars());
    let is_unit = |(before, c): &(char, char)| *c == OHM || (*c == MU && before.is_ascii_digit());
    before.zip(word.chars()).filter(move |pair| !is_unit(pair)).map(|(_, c)| c)
}

fn is_alike(script: Script) -> bool {
    matches!(
        script,
        Script::Latin | Script::Greek | Script::Cyrillic | Script::Armenian | Script::Coptic | Script::Cherokee
    )
}

fn category(character: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(character)
}

fn script(character: char) -> Script {
    CodePointMapData::<Script>::new().get(character)
}

fn is_ignorable(character: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
}

fn is_picture(character: char) -> bool {
    CodePointSetData::new::<ExtendedPictographic>().contains(character)
}

fn is_modifier(character: char) -> bool {
    CodePointSetData::new::<EmojiModifier>().contains(character)
}

fn is_mark(character: char) -> bool {
    matches!(category(character), GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark)
        && !is_ignorable(character)
}

/// Returns whether it is a letter of a script in which letters join.
fn joins(character: char) -> bool {
    character.is_alphabetic() && is_joining(script(character))
}

/// Returns whether it is a mark of such a script, as the virama is.
fn is_joining_mark(character: char) -> bool {
    is_mark(character) && is_joining(script(character))
}

fn is_joining(script: Script) -> bool {
    !is_alike(script) && !matches!(script, Script::Common | Script::Inherited)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(given: &str) -> String {
        shown_text(given, 200).unwrap_err().to_string()
    }

    #[test]
    fn what_people_write_passes() {
        for good in [
            "A brass lamp",
            "Ärger mit Œuvre, 50 % off (№ 7)",
            "Лампа",
            "真鍮のランプ",
            "مصباح",
            "می‌خواهم",
            "क्‍ष",
            "Đèn đồng",
            "ตะเกียง",
            "❤️ lamp 👨‍👩‍👧 👍🏽 1️⃣",
            "α-Tocopherol",
            "⠓⠑⠇⠇⠕",
            "10\u{3BC}F, 4.7 kΩ",
            "ＪＢＬ スピーカー",
        ] {
            assert_eq!(shown_text(good, 200).as_deref(), Ok(good), "{good}");
        }
    }

    #[test]
    fn what_can_not_be_seen_or_turns_the_text_around_is_named() {
        for (given, named) in [
            ("\u{200B}", "U+200B"),
            ("\u{1D159}", "U+1D159"),
            ("\u{13441}", "U+13441"),
            ("\u{FFFD} lamp", "U+FFFD"),
            ("\u{301}lamp", "U+0301"),
            ("\u{1D411}olex", "U+1D411"),
            ("a\u{FEFF}b", "U+FEFF"),
            ("\u{3164}", "U+3164"),
            ("\u{AD}", "U+00AD"),
            ("lamp \u{202E}pmal", "U+202E"),
            ("a\u{2028}b", "U+2028"),
            ("a\u{FFFF}b", "U+FFFF"),
            ("a\u{E000}b", "U+E000"),
            ("a\u{7}b", "U+0007"),
            ("a\u{200D}b", "U+200D"),
            ("a\u{FE0F}", "U+FE0F"),
        ] {
            assert!(refused(given).contains(named), "{given:?}: {}", refused(given));
        }
    }

    #[test]
    fn a_text_without_anything_to_see_is_empty() {
        for blank in ["", "  ", "\u{2800}", "\u{2800} \u{3000}", "\u{301}", "\u{A0}"] {
            assert_eq!(shown_text(blank, 200), Err(InvalidText::Length { given: 0, most: 200 }), "{blank:?}");
        }
        assert_eq!(shown_text(&"x".repeat(201), 200), Err(InvalidText::Length { given: 201, most: 200 }));
    }

    #[test]
    fn stacks_of_marks_and_letters_that_look_alike_are_refused() {
        assert_eq!(shown_text(&format!("la{}mp", "\u{334}".repeat(5)), 200), Err(InvalidText::Marks));
        let hidden = format!("p{}ay", "\u{334}\u{334}\u{334}\u{334}\u{200C}".repeat(20));
        assert!(refused(&hidden).contains("U+200C"), "{}", refused(&hidden));
        assert!(refused("p\u{585}rsche").contains("several scripts"), "an Armenian letter");
        // The first letter is Cyrillic.
        assert_eq!(
            shown_text("\u{0420}ayPal card", 200),
            Err(InvalidText::Scripts { word: "\u{0420}ayPal".to_owned() })
        );
    }

    #[test]
    fn one_text_has_one_form() {
        assert_eq!(shown_text("lamp\u{2800}", 200).as_deref(), Ok("lamp"));
        assert_eq!(shown_text("10k\u{2126} resistor", 200).as_deref(), Ok("10k\u{3A9} resistor"));
        assert_eq!(shown_text("  Cafe\u{301}\u{3000} \u{A0}table ", 200).as_deref(), Ok("Café table"));
    }
}
