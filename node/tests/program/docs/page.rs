//! The blocks of a page of the manual, and what is done with each.

use std::{fs, path::Path};

/// A fenced block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Line of the fence, counted from one.
    pub(crate) line: usize,
    /// The first word behind the fence.
    pub(crate) language: String,
    /// The second word, if there is one.
    pub(crate) mark: Option<String>,
    pub(crate) text: String,
}

/// A page, named by its path from the root of the repository.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) blocks: Vec<Block>,
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

impl Page {
    pub(crate) fn read(name: &str) -> Self {
        let text = fs::read_to_string(root().join(name)).unwrap();
        Self { name: name.to_owned(), blocks: blocks(&text), text }
    }

    /// The README and every page of the manual.
    pub(crate) fn all() -> Vec<Self> {
        let docs = fs::read_dir(root().join("docs")).unwrap();
        let mut names: Vec<String> = docs
            .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()))
            .filter(|name| name.ends_with(".md"))
            .collect();
        names.sort();
        names.insert(0, "README.md".to_owned());
        names.iter().map(|name| Self::read(name)).collect()
    }

    /// Where a block stands, for a test that fails.
    pub(crate) fn place(&self, block: &Block) -> String {
        format!("{}:{}", self.name, block.line)
    }
}

/// The fenced blocks of a page, in their order.
fn blocks(text: &str) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for (number, line) in text.lines().enumerate() {
        let fence = line.strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(words)) => {
                let mut words = words.split_whitespace();
                open = Some(Block {
                    line: number + 1,
                    language: words.next().unwrap_or_default().to_owned(),
                    mark: words.next().map(str::to_owned),
                    text: String::new(),
                });
            }
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block does not end");
    blocks
}
