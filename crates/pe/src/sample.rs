//! Small executables for tests of this and other crates.
#![allow(missing_docs, missing_debug_implementations, clippy::unwrap_used)]

use crate::{Import, Symbol};

/// What is behind a name that a library offers.
pub enum Export {
    Code,
    Forward(&'static str),
    /// Code as Wine's for a function that it lacks, with a library's name.
    Stub(&'static str),
}

/// A file with one section at 0x1000, which is also there in the file.
pub struct Builder {
    pub machine: u16,
    pub wide: bool,
    pub wine: bool,
    pub subsystem: u16,
    pub library: &'static str,
    pub imports: Vec<Import>,
    pub exports: Vec<(&'static str, Export)>,
    pub clr: Option<Vec<&'static str>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            machine: 0x8664,
            wide: true,
            wine: false,
            subsystem: 3,
            library: "",
            imports: Vec::new(),
            exports: Vec::new(),
            clr: None,
        }
    }
}

const BASE: u32 = 0x0040_0000;
const SECTION: u32 = 0x1000;

struct Body(Vec<u8>);

impl Body {
    fn here(&self) -> u32 {
        SECTION + u32::try_from(self.0.len()).unwrap()
    }

    fn add(&mut self, bytes: &[u8]) -> u32 {
        let here = self.here();
        self.0.extend_from_slice(bytes);
        here
    }

    fn text(&mut self, text: &str) -> u32 {
        self.add(&[text.as_bytes(), b"\0"].concat())
    }

    fn numbers(&mut self, numbers: &[u32]) -> u32 {
        self.add(&numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>())
    }
}

impl Builder {
    fn thunks(&self, body: &mut Body, functions: &[Symbol]) -> u32 {
        let mut values: Vec<u64> = functions
            .iter()
            .map(|symbol| match symbol {
                Symbol::Ordinal(number) => {
                    u64::from(*number) | if self.wide { 1 << 63 } else { 1 << 31 }
                }
                Symbol::Name(name) => {
                    let at = body.add(&[0, 0]);
                    body.text(name);
                    at.into()
                }
            })
            .collect();
        values.push(0);
        let width = if self.wide { 8 } else { 4 };
        body.add(&values.iter().flat_map(|v| v.to_le_bytes()[..width].to_vec()).collect::<Vec<_>>())
    }

    fn stub(&self, body: &mut Body, library: &str) -> u32 {
        let name = body.text(library);
        if self.wide {
            let at = body.here();
            let distance = name.wrapping_sub(at + 11);
            body.add(&[0x48, 0x83, 0xec, 0x28, 0x48, 0x8d, 0x0d]);
            body.numbers(&[distance]);
            body.add(&[0x48, 0x8d, 0x15, 0, 0, 0, 0, 0xe8]);
            body.add(&[0x90; 48]);
            at
        } else {
            let at = body.add(&[0x90; 9]);
            body.add(&[0x83, 0xec, 0x0c, 0xc7, 0x44, 0x24, 0x04, 0, 0, 0, 0, 0xc7, 0x04, 0x24]);
            body.numbers(&[BASE + name]);
            body.add(&[0x90; 48]);
            at
        }
    }

    /// The table of imports: libraries that are there from the start, or on demand.
    fn import_table(&self, body: &mut Body, delayed: bool) -> (u32, u32) {
        let mut table = Vec::new();
        for import in self.imports.iter().filter(|import| import.delayed == delayed) {
            let name = body.text(&import.library);
            let thunks = self.thunks(body, &import.functions);
            table.extend(if delayed {
                vec![1, name, 0, 0, thunks, 0, 0, 0]
            } else {
                vec![thunks, 0, 0, name, thunks]
            });
        }
        if table.is_empty() {
            return (0, 0);
        }
        table.extend([0; 8]);
        (body.numbers(&table), 20)
    }

    fn export_table(&self, body: &mut Body) -> (u32, u32) {
        if self.exports.is_empty() {
            return (0, 0);
        }
        let code: Vec<u32> = self
            .exports
            .iter()
            .map(|(_, export)| match export {
                Export::Code => body.add(&[0xc3; 64]),
                Export::Stub(library) => self.stub(body, library),
                Export::Forward(_) => 0,
            })
            .collect();
        // Forwards are told from code by lying in the directory, so the table comes first.
        let table = body.numbers(&[0; 10]);
        let library = body.text(self.library);
        let addresses: Vec<u32> = self
            .exports
            .iter()
            .zip(code)
            .map(|((_, export), code)| match export {
                Export::Forward(target) => body.text(target),
                _ => code,
            })
            .collect();
        let mut names: Vec<(&str, u16)> = Vec::new();
        for (number, (name, _)) in self.exports.iter().enumerate() {
            names.push((name, u16::try_from(number).unwrap()));
        }
        names.sort_unstable();
        let places: Vec<u8> = names.iter().flat_map(|(_, number)| number.to_le_bytes()).collect();
        let name_addresses: Vec<u32> = names.iter().map(|(name, _)| body.text(name)).collect();
        let count = u32::try_from(names.len()).unwrap();
        let (addresses, name_addresses, places) =
            (body.numbers(&addresses), body.numbers(&name_addresses), body.add(&places));
        let fields = [0, 0, 0, library, 1, count, count, addresses, name_addresses, places];
        let at = usize::try_from(table - SECTION).unwrap();
        for (number, field) in fields.into_iter().enumerate() {
            body.0[at + 4 * number..at + 4 * number + 4].copy_from_slice(&u32::to_le_bytes(field));
        }
        (table, body.here() - table)
    }

    fn clr_table(&self, body: &mut Body) -> (u32, u32) {
        let Some(names) = &self.clr else { return (0, 0) };
        let metadata = body.numbers(&[u32::from_le_bytes(*b"BSJB"), 1, 0, 12]);
        body.add(b"v4.0.30319\0\0");
        body.add(&[0, 0, 1, 0]);
        let names = format!("\0{}\0", names.join("\0"));
        body.numbers(&[16 + 12 + 4 + 8 + 12, u32::try_from(names.len()).unwrap()]);
        body.add(b"#Strings\0\0\0\0");
        body.add(names.as_bytes());
        (body.numbers(&[72, 0x0005_0002, metadata, 0, 1]), 72)
    }

    pub fn build(&self) -> Vec<u8> {
        let mut body = Body(vec![0; 16]);
        let mut directories = [(0, 0); 16];
        directories[0] = self.export_table(&mut body);
        directories[1] = self.import_table(&mut body, false);
        directories[13] = self.import_table(&mut body, true);
        directories[14] = self.clr_table(&mut body);
        body.add(&[0; 64]);
        let body = body.0;

        let mut file = vec![0; 0x80];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c] = 0x80;
        if self.wine {
            file[64..80].copy_from_slice(b"Wine builtin DLL");
        }
        let optional: u16 = if self.wide { 240 } else { 224 };
        file.extend(b"PE\0\0");
        file.extend(self.machine.to_le_bytes());
        file.extend(1_u16.to_le_bytes());
        file.extend([0; 12]);
        file.extend(optional.to_le_bytes());
        file.extend(2_u16.to_le_bytes());
        let start = file.len();
        file.resize(start + usize::from(optional), 0);
        let mut put = |at: usize, bytes: &[u8]| {
            file[start + at..start + at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &if self.wide { 0x20b_u16 } else { 0x10b }.to_le_bytes());
        put(if self.wide { 24 } else { 28 }, &BASE.to_le_bytes());
        put(32, &0x1000_u32.to_le_bytes());
        put(60, &0x400_u32.to_le_bytes());
        put(68, &self.subsystem.to_le_bytes());
        let at = if self.wide { 112 } else { 96 };
        put(at - 4, &16_u32.to_le_bytes());
        for (number, (address, size)) in directories.into_iter().enumerate() {
            put(at + 8 * number, &u32::to_le_bytes(address));
            put(at + 8 * number + 4, &u32::to_le_bytes(size));
        }
        file.extend(b".data\0\0\0");
        let size = u32::try_from(body.len()).unwrap();
        for number in [size, SECTION, size, 0x400] {
            file.extend(u32::to_le_bytes(number));
        }
        file.resize(0x400, 0);
        file.extend(body);
        file
    }
}
