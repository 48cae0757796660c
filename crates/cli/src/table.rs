//! Columns, as Docker's tables align them.

/// Columns that text is shown in.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Two for East Asian wide characters, else one.
fn char_width(c: char) -> usize {
    let wide = matches!(u32::from(c),
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0x33ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff
        | 0xa000..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f
        | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1f9ff | 0x20000..=0x3fffd);
    1 + usize::from(wide)
}

/// Aligns tab-separated cells. A column is a run of lines that have a cell there which a tab
/// ends; it is as wide as its widest cell and `padding`, and no narrower than `least`. An empty
/// column takes no place.
pub(crate) fn align(text: &str, least: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    let most = lines.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..most {
        let mut start = 0;
        while start < lines.len() {
            // The last cell of a line is not ended by a tab and belongs to no column.
            let in_column = |line: &Vec<&str>| column + 1 < line.len();
            if !in_column(&lines[start]) {
                start += 1;
                continue;
            }
            let mut end = start;
            while end < lines.len() && in_column(&lines[end]) {
                end += 1;
            }
            let widest = lines[start..end].iter().map(|l| width(l[column])).max().unwrap_or(0);
            let column_width = if widest == 0 { 0 } else { (widest + padding).max(least) };
            for line in &mut widths[start..end] {
                line[column] = column_width;
            }
            start = end;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (index, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for (position, (cell, column_width)) in cells.iter().zip(widths).enumerate() {
            out.push_str(cell);
            if position + 1 < cells.len() {
                out.extend(std::iter::repeat_n(' ', column_width.saturating_sub(width(cell))));
            }
        }
    }
    out
}

/// Cuts text to `columns`, the last of which is an ellipsis.
pub(crate) fn ellipsis(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += char_width(c);
        if used > columns.saturating_sub(1) {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

/// An id without its algorithm, cut to twelve digits.
pub(crate) fn short_id(id: &str) -> String {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        assert_eq!(
            align("A\tLONGER HEADER\tC\n1\t2\t3\nlong cell value\t\tx\n", 10, 3),
            "A                 LONGER HEADER   C\n1                 2               3\nlong \
             cell value                   x\n"
        );
        assert_eq!(align("A\tB\n", 10, 3), "A         B\n");
        assert_eq!(align("日本\tB\nabcdefgh\tC\n", 10, 3), "日本       B\nabcdefgh   C\n");
    }

    #[test]
    fn cuts() {
        assert_eq!(ellipsis("sleep 1000000000000000000", 20), "sleep 1000000000000…");
        assert_eq!(ellipsis("short", 20), "short");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
