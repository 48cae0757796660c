//! As much of Go's syntax as tables of test cases are written in.

/// A literal, or something that is none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Number(u32),
    Name(String),
    /// `Type{key: value, ...}`
    Fields(Vec<(String, Value)>),
    /// `[]Type{value, ...}`
    List(Vec<Value>),
    /// A call, or whatever else has to be run.
    Code,
}

impl Value {
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        let Self::Fields(fields) = self else { return None };
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Text(String),
    Word(String),
    Sign(char),
}

/// The tokens of a file without its comments.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(raw) = rest.strip_prefix('`') {
            let (text, behind) = raw.split_once('`').unwrap();
            tokens.push(Token::Text(text.to_owned()));
            rest = behind;
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let mut text = String::new();
            let mut characters = quoted.char_indices();
            rest = loop {
                match characters.next().unwrap() {
                    (at, '"') => break &quoted[at + 1..],
                    (_, '\\') => match characters.next().unwrap().1 {
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        other => text.push(other),
                    },
                    (_, other) => text.push(other),
                }
            };
            tokens.push(Token::Text(text));
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.');
            let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
            tokens.push(Token::Word(word.to_owned()));
            rest = behind;
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Sign(first));
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    tokens
}

/// Reads tokens as values.
pub(crate) struct Reader<'a> {
    pub(crate) tokens: &'a [Token],
}

impl Reader<'_> {
    pub(crate) fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first.clone())
    }

    fn at(&self, sign: char) -> bool {
        self.tokens.first() == Some(&Token::Sign(sign))
    }

    /// The value up to a comma or a closing bracket, which stays.
    pub(crate) fn value(&mut self) -> Value {
        let value = match self.next().unwrap() {
            Token::Text(text) => Value::Text(text),
            Token::Sign('&') => self.value(),
            Token::Sign('{') => self.block(),
            Token::Sign('[') => {
                if let [Token::Sign(']'), Token::Word(_), Token::Sign('('), Token::Text(text), ..] =
                    self.tokens
                {
                    let text = text.clone();
                    self.tokens = &self.tokens[5..];
                    return Value::Text(text);
                }
                while self.next().unwrap() != Token::Sign('{') {}
                self.block()
            }
            Token::Word(word) if word == "map" => {
                while self.next().unwrap() != Token::Sign('{') {}
                self.block()
            }
            Token::Word(word) => match word.parse() {
                Ok(number) => Value::Number(number),
                Err(_) if self.at('{') => {
                    self.next();
                    self.block()
                }
                Err(_) => Value::Name(word),
            },
            Token::Sign(_) => Value::Code,
        };
        let mut depth = 0;
        let mut plain = true;
        loop {
            match self.tokens.first() {
                None => break,
                Some(Token::Sign(',' | '}' | ')' | ']')) if depth == 0 => break,
                Some(Token::Sign('(' | '{' | '[')) => depth += 1,
                Some(Token::Sign(')' | '}' | ']')) => depth -= 1,
                Some(_) => {}
            }
            plain = false;
            self.next();
        }
        if plain { value } else { Value::Code }
    }

    /// What stands between braces, the first of which is read.
    fn block(&mut self) -> Value {
        let mut fields = Vec::new();
        let mut list = Vec::new();
        while !self.at('}') {
            let key = match self.tokens {
                [Token::Word(key) | Token::Text(key), Token::Sign(':'), ..] => Some(key.clone()),
                _ => None,
            };
            match key {
                Some(key) => {
                    self.tokens = &self.tokens[2..];
                    fields.push((key, self.value()));
                }
                None => list.push(self.value()),
            }
            if self.at(',') {
                self.next();
            }
        }
        self.next();
        if fields.is_empty() { Value::List(list) } else { Value::Fields(fields) }
    }
}
