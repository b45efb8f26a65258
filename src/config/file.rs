//! The configuration file: TOML, read key by key, so that every complaint knows its place.

use super::complaint::{At, Complaint, is_like_a_name, is_plain_section};
use super::keys::{KEYS, Key, OF_BACKEND, OF_LISTENER, Shape};
use super::values::one_of;
use super::{Config, ListenerSettings, same_place};
use crate::balance::BackendSettings;
use rustix::fs::{Mode, OFlags};
use std::env::VarError;
use std::fs::{self, FileType, Metadata};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file that has been read, and which key of it stands where.
pub(super) struct File {
    path: PathBuf,
    text: String,
    places: Vec<(&'static str, Range<usize>)>,
}

/// How long a file may let its reader wait.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    /// Until all is said: at the start nobody else has to wait, and the file may be a pipe.
    Endless,
    /// Not at all: signals are not heard meanwhile.
    None,
}

/// What is wrong at a place of the file.
pub(super) struct Flaw {
    at: Range<usize>,
    what: String,
    right: String,
}

/// One string or number of the file, as text.
struct Word {
    text: String,
    at: Range<usize>,
}

impl File {
    /// Reads the file into `config`, over what stands there.
    ///
    /// # Errors
    /// What is wrong first, where, and what would be right.
    pub(super) fn read(path: &Path, patience: Patience, config: &mut Config) -> Result<File, Complaint> {
        File::understand(path, bytes_of(path, patience)?, config)
    }

    fn understand(path: &Path, bytes: Vec<u8>, config: &mut Config) -> Result<File, Complaint> {
        let mut file = File { path: path.to_owned(), text: String::new(), places: Vec::new() };
        match String::from_utf8(bytes) {
            Ok(text) => file.text = text,
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                file.text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let right = "a configuration file is UTF-8".to_owned();
                return Err(file.complaint(&Flaw {
                    at: good..good + 1,
                    what: "this is no character".to_owned(),
                    right,
                }));
            }
        }
        let mut places = Vec::new();
        let outcome = Reader { text: &file.text, places: &mut places }.read(config);
        outcome.map_err(|flaw| file.complaint(&flaw))?;
        Ok(File { places, ..file })
    }

    /// The complaint about a key's value, if it stands in this file.
    pub(super) fn complaint_about(&self, path: &str, what: &str, right: &str) -> Option<Complaint> {
        let (_, at) = self.places.iter().find(|(key, _)| *key == path)?;
        Some(self.complaint(&Flaw { at: at.clone(), what: what.to_owned(), right: right.to_owned() }))
    }

    fn complaint(&self, flaw: &Flaw) -> Complaint {
        let Flaw { at, what, right } = flaw;
        At { path: &self.path, text: &self.text, start: at.start, end: at.end, what, right }.complaint()
    }
}

/// All that the file says.
fn bytes_of(path: &Path, patience: Patience) -> Result<Vec<u8>, String> {
    let wrong = |error: io::Error| format!("can't read {}: {error}", path.display());
    match patience {
        Patience::Endless => std::fs::read(path).map_err(wrong),
        Patience::None => {
            let refuse = |metadata: &Metadata| match not_at_once(metadata.file_type()) {
                Some(what) => Err(format!(
                    "can't read {} again: it is {what}, and whoever waits for what that says hears no signal; a reload \
                     takes a file",
                    path.display()
                )),
                None => Ok(()),
            };
            // Asked twice: some things are changed by being opened, and what is opened may be something else by then.
            refuse(&path.metadata().map_err(wrong)?)?;
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let mut opened: fs::File =
                rustix::fs::open(path, flags, Mode::empty()).map_err(|error| wrong(error.into()))?.into();
            refuse(&opened.metadata().map_err(wrong)?)?;
            let mut bytes = Vec::new();
            opened.read_to_end(&mut bytes).map_err(wrong)?;
            Ok(bytes)
        }
    }
}

/// What it is, where what it says may be long in coming.
fn not_at_once(kind: FileType) -> Option<&'static str> {
    if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else if kind.is_char_device() || kind.is_block_device() {
        Some("a device")
    } else {
        None
    }
}

struct Reader<'f> {
    text: &'f str,
    places: &'f mut Vec<(&'static str, Range<usize>)>,
}

impl Reader<'_> {
    fn read(&mut self, config: &mut Config) -> Result<(), Flaw> {
        let table = DeTable::parse(self.text).map_err(|error| Flaw {
            at: error.span().unwrap_or(0..0),
            what: error.message().replace('\n', ", "),
            right: right_syntax(error.message()).to_owned(),
        })?;
        for (name, value) in in_order(table.get_ref()) {
            let section = &**name.get_ref();
            if section == "listener" {
                config.listeners = self.listeners(value)?;
            } else if section == "backend" {
                config.backends = self.backends(value)?;
            } else if !section.is_empty() && KEYS.iter().any(|key| key.section() == section) {
                let DeValue::Table(keys) = value.get_ref() else {
                    let right = format!("it is a section: a line [{section}], and its keys below");
                    return Err(wrong_type(section, value, right));
                };
                if section == "health" {
                    config.health.get_or_insert_default(); // to name the section is to ask for checks
                }
                for (name, value) in in_order(keys) {
                    self.read_key(KEYS, section, name, value, config)?;
                }
            } else {
                self.read_key(KEYS, "", name, value, config)?;
            }
        }
        Ok(())
    }

    fn listeners(&mut self, value: &Spanned<DeValue>) -> Result<Vec<ListenerSettings>, Flaw> {
        let mut listeners: Vec<ListenerSettings> = Vec::new();
        for (table, at) in tables("listener", value)? {
            let mut listener = ListenerSettings::from(SocketAddr::from(([0, 0, 0, 0], 0)));
            let place =
                self.required(OF_LISTENER, "listener", ("address", "127.0.0.1:8080"), (table, at), &mut listener)?;
            for (name, value) in in_order(table) {
                self.read_key(OF_LISTENER, "listener", name, value, &mut listener)?;
            }
            let address = listener.address;
            if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
                let what = format!("the address {address} is given twice");
                return Err(Flaw { at: place, what, right: "every listener has an address of its own".to_owned() });
            }
            listeners.push(listener);
        }
        Ok(listeners)
    }

    fn backends(&mut self, value: &Spanned<DeValue>) -> Result<Vec<BackendSettings>, Flaw> {
        let mut backends: Vec<BackendSettings> = Vec::new();
        for (table, at) in tables("backend", value)? {
            let nowhere = "http://nowhere.invalid".parse().expect("the URL is well-formed");
            let mut backend = BackendSettings::at(nowhere);
            let url =
                self.required(OF_BACKEND, "backend", ("url", "http://127.0.0.1:3000"), (table, at), &mut backend)?;
            backend = BackendSettings::at(backend.origin); // for the name that it has without one
            for (name, value) in in_order(table) {
                self.read_key(OF_BACKEND, "backend", name, value, &mut backend)?;
            }
            if let Some(other) = backends.iter().find(|other| same_place(&other.origin, &backend.origin)) {
                let what = format!("the backend {} is given twice, as {:?} before", backend.origin, other.name);
                let right = "every backend has a url of its own; one that is to get more has a greater weight";
                return Err(Flaw { at: url, what, right: right.to_owned() });
            }
            if backends.iter().any(|other| other.name == backend.name) {
                let what = format!("the name {:?} is given twice", backend.name);
                let right = "every backend has a name of its own; without one it is host, port and prefix";
                let at = table.get("name").map_or(url, Spanned::span);
                return Err(Flaw { at, what, right: right.to_owned() });
            }
            let are_alike =
                |other: &&BackendSettings| other.may_take_name(&backend.name) || backend.may_take_name(&other.name);
            if let Some(other) = backends.iter().find(are_alike) {
                let what = format!("the names {:?} and {:?} may come to the same", other.name, backend.name);
                let right =
                    "where `expand` is true, NAME/ADDRESS:PORT is the name of a backend at one of its addresses";
                let at = table.get("name").map_or(url, Spanned::span);
                return Err(Flaw { at, what, right: right.to_owned() });
            }
            backends.push(backend);
        }
        Ok(backends)
    }

    /// Reads the key without which the table makes no sense, and says where its value stands.
    fn required<T>(
        &mut self,
        keys: &'static [Key<T>],
        section: &str,
        (name, example): (&str, &str),
        (table, at): (&DeTable, Range<usize>),
        into: &mut T,
    ) -> Result<Range<usize>, Flaw> {
        let Some((key, value)) = table.get_key_value(name) else {
            let what = format!("this {section} has no {name}");
            let right = format!("it takes a line such as {name} = \"{example}\"");
            return Err(Flaw { at, what, right });
        };
        self.read_key(keys, section, key, value, into)?;
        Ok(value.span())
    }

    fn read_key<T>(
        &mut self,
        keys: &'static [Key<T>],
        section: &str,
        name: &Spanned<toml::de::DeString>,
        value: &Spanned<DeValue>,
        into: &mut T,
    ) -> Result<(), Flaw> {
        let Some(key) = keys.iter().find(|key| key.section() == section && key.name() == *name.get_ref()) else {
            let is_table = section.is_empty() && matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
            return Err(unknown(keys, section, name, is_table));
        };
        if let Some(clear) = key.clear {
            clear(into);
        }
        for Word { text, at } in self.words(key, value)? {
            (key.read)(into, &text).map_err(|error| {
                // No value is in `what`, which all may see, and it may have come from the environment. And whoever mistakes
                // one line of the section for the next may have put the secret there.
                let right = if is_plain_section(key.section()) { format!("{text:?}: {error}") } else { error };
                Flaw { at, what: format!("this is not possible for `{}`", key.path), right }
            })?;
        }
        self.places.push((key.path, value.span()));
        Ok(())
    }

    /// The words of a value; one, unless the key is a list.
    fn words<T>(&self, key: &Key<T>, value: &Spanned<DeValue>) -> Result<Vec<Word>, Flaw> {
        if !key.is_list() {
            return self.word(key, value).map(|word| vec![word]);
        }
        let DeValue::Array(items) = value.get_ref() else {
            return Err(wrong_type(key.path, value, right_type(key.shape)));
        };
        items.iter().map(|item| self.word(key, item)).collect()
    }

    fn word<T>(&self, key: &Key<T>, value: &Spanned<DeValue>) -> Result<Word, Flaw> {
        let at = value.span();
        let text = match (key.shape, value.get_ref()) {
            (
                Shape::Text(_) | Shape::Time | Shape::Size | Shape::Choice(..) | Shape::Texts(_),
                DeValue::String(text),
            ) => self.filled_in(key, text, &at)?,
            (Shape::Number | Shape::Numbers(_) | Shape::Size, DeValue::Integer(number)) => {
                let decimal = i128::from_str_radix(number.as_str(), number.radix());
                decimal.map_or_else(|_| number.to_string(), |number| number.to_string())
            }
            (Shape::Switch, DeValue::Boolean(on)) => if *on { "on" } else { "off" }.to_owned(),
            (shape, _) if key.is_list() => {
                let right = format!("{}, and nothing else within it", right_type(shape));
                return Err(wrong_type(key.path, value, right));
            }
            (shape, _) => return Err(wrong_type(key.path, value, right_type(shape))),
        };
        Ok(Word { text, at })
    }

    /// The text with every `${NAME}` replaced by what the environment says; `$${` is a plain `${`.
    ///
    /// No name is told where a secret may be: who puts it between the braces has written no name there.
    fn filled_in<T>(&self, key: &Key<T>, text: &str, at: &Range<usize>) -> Result<String, Flaw> {
        let mut full = String::new();
        let mut rest = text;
        let mut nth = 0;
        while let Some(dollar) = rest.find("${") {
            let (before, opened) = rest.split_at(dollar);
            let behind = opened.get(2..).unwrap_or_default();
            if let Some(before) = before.strip_suffix('$') {
                full += before;
                full += "${";
                rest = behind;
            } else {
                let flaw = |what, right: &str| Flaw { at: self.nth_opening(at, nth), what, right: right.to_owned() };
                let (name, behind) = behind.split_once('}').ok_or_else(|| {
                    flaw("this ${ has no end".to_owned(), "it is ${NAME}; a ${ that means itself is written $${")
                })?;
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                if name.is_empty() || !name.bytes().all(is_name) {
                    let shown = if is_plain_section(key.section()) { format!("{name:?}") } else { "this".to_owned() };
                    let what = format!("{shown} is not the name of a variable");
                    return Err(flaw(what, "it is ${NAME}; a ${ that means itself is written $${"));
                }
                full += before;
                full += &std::env::var(name).map_err(|error| {
                    let right = "set it before the program starts; a ${ that means itself is written $${";
                    let shown = if is_plain_section(key.section()) { name } else { "that is named here" };
                    // In the words of the error its value would stand.
                    let why = match error {
                        VarError::NotPresent => "is not set",
                        VarError::NotUnicode(_) => "is not UTF-8",
                    };
                    flaw(format!("the environment variable {shown} {why}"), right)
                })?;
                rest = behind;
            }
            nth += 1;
        }
        Ok(full + rest)
    }

    /// Where the `nth` `${` of a string stands, with what belongs to it; the whole string where escapes hide it.
    fn nth_opening(&self, at: &Range<usize>, nth: usize) -> Range<usize> {
        let raw = self.text.get(at.clone()).unwrap_or_default();
        let Some((start, _)) = raw.match_indices("${").nth(nth) else { return at.clone() };
        let end = raw.get(start..).and_then(|opened| opened.find('}')).map_or(raw.len(), |end| start + end + 1);
        at.start + start..at.start + end
    }
}

/// The first that is wrong should be the first that is complained about.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<toml::de::DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// The tables of an array of them, and where each begins.
fn tables<'t, 'i>(
    section: &str,
    value: &'t Spanned<DeValue<'i>>,
) -> Result<Vec<(&'t DeTable<'i>, Range<usize>)>, Flaw> {
    let right = || format!("every {section} is a line [[{section}]], and its keys below");
    let DeValue::Array(items) = value.get_ref() else { return Err(wrong_type(section, value, right())) };
    let table = |item: &'t Spanned<DeValue<'i>>| {
        let DeValue::Table(table) = item.get_ref() else { return Err(wrong_type(section, item, right())) };
        Ok((table, item.span()))
    };
    items.iter().map(table).collect()
}

fn wrong_type(path: &str, value: &Spanned<DeValue>, right: String) -> Flaw {
    let is = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    Flaw { at: value.span(), what: format!("`{path}` can't be {is}"), right }
}

fn right_type(shape: Shape) -> String {
    match shape {
        Shape::Text(name) => format!("it takes a string, \"{name}\""),
        Shape::Number => "it takes a whole number, such as 100".to_owned(),
        Shape::Time => "it takes a string with a duration, such as \"500ms\", \"10s\" or \"2h\"".to_owned(),
        Shape::Size => "it takes a string with a size, such as \"16KiB\", or a number of bytes".to_owned(),
        Shape::Switch => "it is true or false".to_owned(),
        Shape::Choice(_, choices) => format!("{}, as a string", one_of(&choices())),
        Shape::Texts(name) => format!("it takes an array of strings, [\"{name}\"]"),
        Shape::Numbers(_) => "it takes an array of whole numbers, such as [502, 503]".to_owned(),
    }
}

fn right_syntax(message: &str) -> &'static str {
    if message.contains("duplicate key") {
        "a key or section is given once; only [[listener]] and [[backend]] may be repeated"
    } else {
        "a file is made of lines such as workers = 2, sections such as [timeouts], and within them idle = \"60s\""
    }
}

/// How alike a name and the nearest one are at least, if it is a slip: 0 to 1, by Jaro and Winkler.
const ALIKE: f64 = 0.75;

/// No key of that name here; perhaps elsewhere, or a letter away.
fn unknown<T>(keys: &[Key<T>], section: &str, name: &Spanned<toml::de::DeString>, is_table: bool) -> Flaw {
    let wrong = &**name.get_ref();
    let place = match section {
        "" => "above all sections".to_owned(),
        "listener" | "backend" => format!("in [[{section}]]"),
        _ => format!("in [{section}]"),
    };
    // Whoever knows the flag may write it here.
    let as_flag = wrong.replace('_', "-");
    let elsewhere = KEYS.iter().find(|key| key.name() == wrong || key.flag == as_flag);
    let right = match elsewhere.filter(|_| !is_table) {
        Some(key) if key.section().is_empty() => format!("`{}` stands above all sections", key.name()),
        Some(key) if key.section() == section => format!("the nearest is `{}`", key.name()),
        Some(key) => format!("the nearest is `{}` in [{}]", key.name(), key.section()),
        None => {
            let mut known: Vec<&str> = keys.iter().filter(|key| key.section() == section).map(Key::name).collect();
            if section.is_empty() {
                known.extend(keys.iter().map(Key::section).filter(|section| !section.is_empty()));
                known.extend(["listener", "backend"]);
            }
            let likeness = |name: &str| strsim::jaro_winkler(name, wrong);
            let nearest = known.iter().copied().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
            match (nearest, elsewhere) {
                (Some(nearest), _) if likeness(nearest) >= ALIKE => format!("the nearest is `{nearest}`"),
                (_, Some(key)) => format!("`{}` stands in [{}]", key.name(), key.section()),
                _ => {
                    known.dedup();
                    format!("what may stand there: {}", known.join(", "))
                }
            }
        }
    };
    // Where the secret stands, a word that resembles no key may be the secret.
    let what = match is_plain_section(section) || is_like_a_name(wrong) {
        true => format!("there is no key `{wrong}` {place}"),
        false => format!("there is no key of this name {place}"),
    };
    Flaw { at: name.span(), what, right }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "S3cretOfSixteen+more==";

    /// Whether a piece of the secret stands there that helps to guess the rest.
    fn tells(complaint: &Complaint) -> bool {
        let pieces = || (0..SECRET.len() - 5).map(|at| &SECRET[at..at + 6]);
        pieces().any(|piece| complaint.full.contains(piece) || complaint.short.contains(piece))
    }

    #[test]
    fn no_slip_of_the_hand_makes_a_complaint_tell_the_secret() {
        let shapes = [
            "workers = 2\n[admin]\nlisten = \"127.0.0.1:1\"\ntoken = \"SECRET\"\nanywhere = true\n[log]\nlevel = \"info\"\n",
            "[timeouts]\nidle = \"1s\"\n\n[admin] # who\n  token='SECRET' # what\n\n[log]\nwire = true\n",
            "admin.token = \"SECRET\"\nadmin.listen = \"127.0.0.1:1\"\n[log]\nlevel = \"info\"\n",
            "workers = 2\nadmin = { token = \"SECRET\", listen = \"127.0.0.1:1\" }\n[log]\nlevel = \"info\"\n",
            "workers = 2\nadmin = {\n  listen = \"127.0.0.1:1\",\n  token = \"SECRET\",\n}\n[log]\nlevel = \"info\"\n",
            "[admin]\n\"token\" = \"SECRET\"\nhosts = [\n  \"a\",\n  \"b\",\n]\n",
            "[\"admin\"]\ntoken = \"\"\"\nSECRET\"\"\"\n[log]\nlevel = \"info\"\n",
            "[admin]\ntoken = \'\'\'SECRET\'\'\'\r\nanywhere = true\r\n[log]\r\nlevel = \"info\"\r\n",
            "[log]\nlevel = \"info\"\n[admin]\ntoken = \"${SECRET}\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n",
        ];
        let given = ["", "\"", "'", "=", "#", "[", "]", "{", ",", "\\", "\n", " ", "${", "X", "\x01"];
        let mut complaints = 0;
        for text in shapes.map(|shape| shape.replace("SECRET", SECRET)) {
            let secret = text.find(SECRET).unwrap();
            let near = secret.saturating_sub(30)..text.len().min(secret + SECRET.len() + 30);
            let slips = near.flat_map(|at| (0..=2).flat_map(move |taken| given.map(|given| (at, taken, given))));
            for (at, taken, given) in slips {
                let Some(behind) = text.get(at + taken..) else { continue };
                let slip = [&text[..at], given, behind].concat();
                let outcome = File::understand(Path::new("FILE"), slip.clone().into_bytes(), &mut Config::defaults());
                if let Err(complaint) = outcome {
                    assert!(!tells(&complaint), "{complaint:#?}\nof: {slip}");
                    complaints += 1;
                }
            }
        }
        assert!(complaints > 5_000, "hardly anything was wrong: {complaints}");
    }

    fn complaint_of(text: &str) -> Complaint {
        let outcome = File::understand(Path::new("FILE"), text.as_bytes().to_vec(), &mut Config::defaults());
        outcome.err().unwrap_or_else(|| panic!("this is taken: {text}"))
    }

    #[test]
    fn a_key_that_is_none_is_not_named_where_it_may_be_the_secret() {
        for text in ["\"SECRET\" = \"token\"", "SECRET = \"\"", "SECRET = true"] {
            let secret = if text.starts_with('"') { SECRET } else { "S3cretOfSixteenMore" };
            let complaint = complaint_of(&format!("[admin]\n{}\n", text.replace("SECRET", secret)));
            assert!(!tells(&complaint), "{complaint:#?}");
            assert!(complaint.full.contains("there is no key of this name in [admin]"), "{complaint:#?}");
        }
        assert!(complaint_of("[admin]\ntokne = \"a\"\n").short.contains("there is no key `tokne` in [admin]"));
    }

    #[test]
    fn what_is_told_in_short_holds_no_value() {
        for text in ["[[backend]]\nurl = \"http://user:hunter2@a\"\n", "[timeouts]\nidle = \"hunter2\"\n"] {
            let Complaint { short, full } = complaint_of(text);
            assert!(short.starts_with("this is not possible for `") && !short.contains("hunter2"), "{short}");
            assert!(full.contains("hunter2"), "{full}");
        }
    }
}
