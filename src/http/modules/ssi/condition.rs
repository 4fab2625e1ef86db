//! What stands in `if expr="…"`: a text, or two of them compared.

/// A condition, its texts not yet put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<'e> {
    /// In lower case, as nginx has it.
    pub left: Vec<u8>,
    /// `None`: whether the left one is empty.
    pub right: Option<Right<'e>>,
}

/// What the left text is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right<'e> {
    pub text: &'e [u8],
    /// It is an expression.
    pub regex: bool,
    /// It must not be the same.
    pub negative: bool,
}

/// Takes an expression apart (`ngx_http_ssi_if`).
///
/// # Errors
/// nginx's words about one that cannot be read.
pub fn split(expr: &[u8]) -> Result<Condition<'_>, String> {
    let in_left = |byte: &u8| byte.is_ascii_alphanumeric() || b"${}_\"'".contains(byte);
    let length = expr.iter().take_while(|byte| in_left(byte)).count();
    let left = expr[..length].to_ascii_lowercase();
    let rest = skip_blanks(&expr[length..]);
    if rest.is_empty() {
        return Ok(Condition { left, right: None });
    }
    let invalid = || {
        let expr = [&left, &expr[length..]].concat();
        format!("invalid expression in \"{}\"", String::from_utf8_lossy(&expr))
    };
    let (rest, negative) = match rest {
        [b'=', rest @ ..] => (rest, false),
        [b'!', b'=', rest @ ..] => (rest, true),
        _ => return Err(invalid()),
    };
    let text = skip_blanks(rest);
    let right = match text {
        [b'/', regex @ .., b'/'] => Right { text: regex, regex: true, negative },
        [b'/', _, ..] => return Err(invalid()),
        [b'\\', b'/', ..] => Right { text: &text[1..], regex: false, negative },
        _ => Right { text, regex: false, negative },
    };
    Ok(Condition { left, right: Some(right) })
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| **byte == b' ').count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_a_text_or_two_compared() {
        let written = |condition: Condition<'_>| {
            let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
            let right = condition.right.map(|right| {
                let operator = if right.negative { "!=" } else { "=" };
                let around = if right.regex { "/" } else { "" };
                format!(" {operator} {around}{}{around}", text(right.text))
            });
            format!("{}{}", text(&condition.left), right.unwrap_or_default())
        };
        for (expr, expected) in [
            ("", ""),
            ("$A_b", "$a_b"),
            ("${a}B  ", "${a}b"),
            ("$a=B", "$a = B"),
            ("$a  =  b c", "$a = b c"),
            ("$a != ", "$a != "),
            ("$a!=/b/", "$a != /b/"),
            ("$a = //", "$a = //"),
            ("$a = /", "$a = /"),
            ("$a = \\/b/", "$a = /b/"),
            ("= b", " = b"),
        ] {
            assert_eq!(split(expr.as_bytes()).map(written).unwrap(), expected, "{expr}");
        }
        for (expr, shown) in [("$A b", "$a b"), ("$a-b", "$a-b"), ("$a ! b", "$a ! b"), ("$a = /b", "$a = /b")] {
            let fault = format!("invalid expression in \"{shown}\"");
            assert_eq!(split(expr.as_bytes()).map(written), Err(fault), "{expr}");
        }
    }
}
