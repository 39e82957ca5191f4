//! Text of nginx's configuration as directives, split as nginx splits it (nginx 1.27,
//! src/core/ngx_conf_file.c, `ngx_conf_read_token`). What nginx would refuse is read as well as
//! it can be.

use std::{iter::Peekable, str::CharIndices};

/// A directive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Directive {
    /// The line that it begins on, from 1.
    pub(super) line: usize,
    /// Its words, without quotes: its name, and its parameters.
    pub(super) words: Vec<String>,
    /// It as it is written, in one line.
    pub(super) text: String,
    /// Whether it opens a block.
    pub(super) opens: bool,
    /// The number of the directive in whose block it is.
    pub(super) within: Option<usize>,
}

/// All directives, those in blocks too.
pub(super) fn directives(text: &str) -> Vec<Directive> {
    let mut reader = Reader {
        text,
        chars: text.char_indices().peekable(),
        line: 1,
    };
    let mut all: Vec<Directive> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    loop {
        let (statement, end) = reader.statement();
        let opens = end == End::Opens;
        if let Some((line, words, text)) = statement {
            let is_lua = words[0].ends_with("_by_lua_block");
            let within = open.last().copied();
            all.push(Directive {
                line,
                words,
                text,
                opens,
                within,
            });
            if opens && is_lua {
                reader.skip_block();
            } else if opens {
                open.push(all.len() - 1);
            }
        }
        match end {
            End::Text => return all,
            End::Closes => drop(open.pop()),
            End::Opens | End::Directive => {}
        }
    }
}

/// What a statement ends by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// `;`
    Directive,
    /// `{`
    Opens,
    /// `}`
    Closes,
    /// The end of the text.
    Text,
}

struct Reader<'t> {
    text: &'t str,
    chars: Peekable<CharIndices<'t>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<(usize, char)> {
        let next = self.chars.next();
        self.line += usize::from(matches!(next, Some((_, '\n'))));
        next
    }

    /// The next statement, if there is one before what ends it: its line, its words, its text.
    fn statement(&mut self) -> (Option<(usize, Vec<String>, String)>, End) {
        let mut words = Vec::new();
        let mut first = None;
        let (mut line, mut last) = (self.line, self.text.len());
        let end = loop {
            let Some((at, c)) = self.chars.peek().copied() else {
                break End::Text;
            };
            let end = match c {
                ';' => End::Directive,
                '{' => End::Opens,
                '}' => End::Closes,
                '#' => {
                    while self.next().is_some_and(|(_, c)| c != '\n') {}
                    continue;
                }
                c if c.is_whitespace() => {
                    self.next();
                    continue;
                }
                _ => {
                    if first.is_none() {
                        (first, line) = (Some(at), self.line);
                    }
                    words.push(self.word());
                    let next = self.chars.peek();
                    last = next.map_or(self.text.len(), |(at, _)| *at);
                    continue;
                }
            };
            self.next();
            break end;
        };
        let text = first.map(|first| self.text[first..last].split_whitespace());
        let text = text.map(|words| words.collect::<Vec<_>>().join(" "));
        (text.map(|text| (line, words, text)), end)
    }

    /// A word: in quotes, or up to whitespace, `;` or `{`; a `{` behind `$` is part of it.
    fn word(&mut self) -> String {
        let mut word = String::new();
        let quote = self.chars.peek().map(|(_, c)| *c);
        let quote = quote.filter(|c| matches!(c, '"' | '\''));
        if quote.is_some() {
            self.next();
        }
        let mut is_variable = false;
        while let Some((_, c)) = self.chars.peek().copied() {
            let ends = match quote {
                Some(_) => false,
                None => c.is_whitespace() || c == ';' || (c == '{' && !is_variable),
            };
            if ends {
                break;
            }
            self.next();
            if quote == Some(c) {
                break;
            }
            is_variable = c == '$';
            match c {
                '\\' => self.escaped(&mut word),
                c => word.push(c),
            }
        }
        word
    }

    fn escaped(&mut self, word: &mut String) {
        match self.next() {
            Some((_, c @ ('"' | '\'' | '\\'))) => word.push(c),
            Some((_, 't')) => word.push('\t'),
            Some((_, 'r')) => word.push('\r'),
            Some((_, 'n')) => word.push('\n'),
            Some((_, c)) => word.extend(['\\', c]),
            None => word.push('\\'),
        }
    }

    /// Goes behind the end of a block of another language.
    fn skip_block(&mut self) {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some((_, '{')) => depth += 1,
                Some((_, '}')) => depth -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_and_blocks_are_those_of_nginx() {
        let text = "# a comment; with { in it
more_set_headers \"X-A: b; c\" 'it''s';
if ($http_x = 'a b') {
    return 301
        https://${host}/x;
}
location ~ ^/a{2}$ { deny all; }
content_by_lua_block { if x then y = {} end; }
set $v \"say \\\"hi\\\" \\d\";
last";
        let words: Vec<(usize, Vec<&str>, bool, Option<usize>)> = vec![
            (
                2,
                vec!["more_set_headers", "X-A: b; c", "it", "s"],
                false,
                None,
            ),
            (3, vec!["if", "($http_x", "=", "a b", ")"], true, None),
            (
                4,
                vec!["return", "301", "https://${host}/x"],
                false,
                Some(1),
            ),
            // As in nginx, an expression with a brace has to be in quotes.
            (7, vec!["location", "~", "^/a"], true, None),
            (7, vec!["2}$"], true, Some(3)),
            (7, vec!["deny", "all"], false, Some(4)),
            (8, vec!["content_by_lua_block"], true, Some(3)),
            (9, vec!["set", "$v", "say \"hi\" \\d"], false, Some(3)),
            (10, vec!["last"], false, Some(3)),
        ];
        let all = directives(text);
        let all = all.iter().map(|d| {
            let words: Vec<&str> = d.words.iter().map(String::as_str).collect();
            (d.line, words, d.opens, d.within)
        });
        assert_eq!(all.collect::<Vec<_>>(), words);
    }

    #[test]
    fn a_directive_is_shown_in_one_line() {
        let all = directives("  add_header\n   X \"a  b\" ;  }");
        assert_eq!(all[0].text, "add_header X \"a b\"");
        assert_eq!((all[0].line, all.len()), (1, 1));
    }

    proptest! {
        #[test]
        fn any_text_has_an_end(text in "[a-z$#;{}\"'\\\\\n ]{0,60}") {
            let all = directives(&text);
            prop_assert!(all.iter().all(|d| !d.words.is_empty() && d.line >= 1));
            prop_assert!(all.iter().enumerate().all(|(at, d)| d.within.is_none_or(|w| w < at)));
        }
    }
}
