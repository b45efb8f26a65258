//! Quotes: a block of Rust in a page, woven from the item of the source that the line above it names.
//!
//! The line names a file, by a link, and an item: `fn`, type, constant or macro call, or a method as `Type::method`. A quote is
//! the whole item, with or without what is documented above it; a line `// ...` stands for lines left out.

use super::{Block, root};
use std::fs;

/// A line of a quote that stands for others.
const LEFT_OUT: &str = "// ...";

/// What the source says of the item that this block quotes, with the same lines left out.
pub(crate) fn woven(block: &Block) -> Result<String, String> {
    let (file, name) =
        named(&block.caption).ok_or_else(|| format!("no file and item in the line above: {:?}", block.caption))?;
    let source = fs::read_to_string(root().join(&file)).map_err(|error| format!("{file}: {error}"))?;
    let lines: Vec<&str> = source.lines().collect();
    let quote: Vec<&str> = block.text.lines().collect();
    let (documented, begin, end) = item(&lines, &name).ok_or_else(|| format!("{file} has no {name}"))?;
    let is_documented = quote.first().is_some_and(|line| line.starts_with("///") || line.starts_with("#["));
    let from = if is_documented || quote.is_empty() { documented } else { begin };
    let indent = indent_of(lines[begin]);
    let item: Vec<&str> = lines[from..=end].iter().map(|line| line.get(indent..).unwrap_or_default()).collect();
    weave(&item, &quote).map(|lines| lines.iter().map(|line| format!("{line}\n")).collect())
}

/// How many lines an item of the source has, without what is documented above it.
pub(crate) fn lines_of(file: &str, name: &str) -> usize {
    let source = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let lines: Vec<&str> = source.lines().collect();
    let (_, begin, end) = item(&lines, name).unwrap_or_else(|| panic!("{file} has no {name}"));
    end - begin + 1
}

/// ``[`src/a.rs`](../src/a.rs), `Type::item`:``
fn named(caption: &str) -> Option<(String, String)> {
    let (_, rest) = caption.split_once("[`")?;
    let (file, rest) = rest.split_once("`](")?;
    let (_, rest) = rest.split_once(')')?;
    let name = rest.split('`').nth(1)?;
    Some((file.to_owned(), name.to_owned()))
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Where an item's documentation begins, where it begins itself, and its last line.
fn item(lines: &[&str], name: &str) -> Option<(usize, usize, usize)> {
    match name.split_once("::") {
        Some((owner, method)) => {
            let blocks = lines.iter().enumerate().filter(|(_, line)| is_block_of(line, owner));
            blocks.filter_map(|(at, _)| Some((at, end_of(lines, at)?))).find_map(|(begin, end)| {
                let inside = lines.iter().enumerate().take(end).skip(begin + 1);
                let found = inside.filter(|(_, line)| declares(line, method)).map(|(at, _)| at).next()?;
                Some((documentation_of(lines, found), found, end_of(lines, found)?))
            })
        }
        None => {
            let found = lines.iter().position(|line| !line.starts_with(' ') && declares(line, name))?;
            Some((documentation_of(lines, found), found, end_of(lines, found)?))
        }
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// `impl Owner`, `impl<T> Trait for Owner<T>`, or the declaration of a type that has fields.
fn is_block_of(line: &str, owner: &str) -> bool {
    line.starts_with("impl") && line.ends_with('{') && words(line).any(|word| word == owner)
}

fn declares(line: &str, name: &str) -> bool {
    const KINDS: [&str; 8] = ["fn", "struct", "enum", "const", "static", "type", "trait", "mod"];
    let line = line.trim_start();
    if let Some(called) = name.strip_suffix('!') {
        return line.starts_with(&format!("{called}! {{"));
    }
    let mut earlier = "";
    for word in words(line) {
        if word == name {
            return KINDS.contains(&earlier);
        }
        if !KINDS.contains(&word) && !["pub", "super", "crate", "const"].contains(&word) {
            return false;
        }
        earlier = word;
    }
    false
}

fn documentation_of(lines: &[&str], item: usize) -> usize {
    let above = lines[..item].iter().rev();
    let above = above.take_while(|line| {
        let line = line.trim_start();
        line.starts_with("///") || line.starts_with("#[")
    });
    item - above.count()
}

/// The line that closes what this one opens: rustfmt puts it at the same depth.
fn end_of(lines: &[&str], begin: usize) -> Option<usize> {
    let line = lines[begin];
    let opens = line.matches(['{', '(', '[']).count();
    if line.ends_with(';') || (line.ends_with('}') && opens == line.matches(['}', ')', ']']).count()) {
        return Some(begin);
    }
    let indent = indent_of(line);
    let behind = lines.iter().enumerate().skip(begin + 1);
    let mut closing =
        behind.filter(|(_, line)| indent_of(line) == indent && line.trim_start().starts_with(['}', ')', ']']));
    closing.find(|(_, line)| !line.ends_with('{')).map(|(at, _)| at)
}

/// The item's lines, with those left out that the quote leaves out.
fn weave(item: &[&str], quote: &[&str]) -> Result<Vec<String>, String> {
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    let parts: Vec<&[&str]> = quote.split(|line| line.trim() == LEFT_OUT).collect();
    let marks: Vec<&&str> = quote.iter().filter(|line| line.trim() == LEFT_OUT).collect();
    for (nth, part) in parts.iter().enumerate() {
        let is_last = nth + 1 == parts.len();
        if nth > 0 {
            out.push((*marks[nth - 1]).to_owned());
        }
        let (Some(first), Some(last)) = (part.first(), part.last()) else {
            if nth == 0 && is_last {
                out.extend(item.iter().map(|line| (*line).to_owned())); // an empty quote: to be blessed
            }
            continue;
        };
        let rest = &item[at..];
        let lost = |line: &str| format!("the quote has lost its place, at {line:?}");
        let begin = match nth {
            0 => 0,
            _ => {
                let whole = rest.windows(part.len()).position(|lines| lines == *part);
                whole.or(rest.iter().position(|line| line == first)).ok_or_else(|| lost(first))?
            }
        };
        let end = if is_last {
            rest.len()
        } else if rest[begin..].starts_with(part) {
            begin + part.len()
        } else {
            let length = rest[begin..].iter().position(|line| line == last).ok_or_else(|| lost(last))?;
            begin + length + 1
        };
        out.extend(rest[begin..end].iter().map(|line| (*line).to_owned()));
        at += end;
    }
    Ok(out)
}

#[test]
fn a_quote_is_the_item_with_the_same_lines_left_out() {
    let item = ["fn a() {", "    b();", "    c();", "    d();", "}"];
    let rows: [(&[&str], Result<&[&str], ()>); 6] = [
        (&item, Ok(&item)),
        (&["fn a() {", "    x();", "}"], Ok(&item)),
        (&["fn a() {", "    // ...", "    d();", "}"], Ok(&["fn a() {", "    // ...", "    d();", "}"])),
        (
            &["fn a() {", "    // ...", "    c();", "    x();", "}"],
            Ok(&["fn a() {", "    // ...", "    c();", "    d();", "}"]),
        ),
        (&["fn a(x) {", "    // ...", "    x();", "}"], Err(())),
        (&[], Ok(&item)),
    ];
    for (quote, expected) in rows {
        let woven = weave(&item, quote).map_err(|_| ());
        assert_eq!(
            woven.as_deref(),
            expected.map(|lines| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>()).as_deref()
        );
    }
}

#[test]
fn an_item_is_found_by_its_name() {
    let source = "/// A.\n#[b]\npub struct A {\n    a: u8,\n}\n\nconst A_B: u8 = 1;\n\nimpl<T> C for A<T> {\n    /// D.\n    pub(super) fn d(\n        &self,\n    ) -> u8 {\n        1\n    }\n\n    fn e() -> u8 { 2 }\n}\n\nfn d() {\n}\n";
    let lines: Vec<&str> = source.lines().collect();
    assert_eq!(item(&lines, "A"), Some((0, 2, 4)));
    assert_eq!(item(&lines, "A_B"), Some((6, 6, 6)));
    assert_eq!(item(&lines, "A::d"), Some((9, 10, 14)));
    assert_eq!(item(&lines, "A::e"), Some((16, 16, 16)));
    assert_eq!(item(&lines, "d"), Some((19, 19, 20)));
    assert_eq!(item(&lines, "e"), None);
}
