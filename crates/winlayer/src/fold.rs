//! How NTFS compares names: without case, one UTF-16 unit for one.

/// The upper case of a name, by which NTFS, and this crate, compare it. A character has an
/// upper case if that is one unit and leads back to it; this is what the table that Windows
/// formats volumes with has for letters (so not `ı`, `ſ`, `µ` or the final sigma).
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_uppercase();
    }
    name.chars().map(upper).collect()
}

fn upper(letter: char) -> char {
    if letter.is_ascii() {
        return letter.to_ascii_uppercase();
    }
    let mut letters = letter.to_uppercase();
    let (Some(upper), None) = (letters.next(), letters.next()) else {
        return letter;
    };
    let back = upper.to_lowercase().eq([letter]);
    if u32::from(letter) <= 0xffff && u32::from(upper) <= 0xffff && back { upper } else { letter }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds() {
        for (name, want) in [
            ("Windows", "WINDOWS"),
            ("größe", "GRÖßE"),
            ("ÿ", "Ÿ"),
            ("ıſµς", "ıſµς"),
            ("σ", "Σ"),
            ("ﬀ", "ﬀ"),
            ("файл", "ФАЙЛ"),
            ("𐐨", "𐐨"),
        ] {
            assert_eq!(fold(name), want);
            assert_eq!(fold(want), want);
        }
    }
}
