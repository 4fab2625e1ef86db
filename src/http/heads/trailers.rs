//! The fields behind a body in the chunked coding (`ngx_http_proxy_process_trailer`). RFC 9112, section 7.1.2.

use super::{
    Fields, HeadError,
    field_line::{Dialect, FieldLine, Span, Step},
};
use bytes::Bytes;

/// The fields of the lines between the last chunk and the empty line at the end.
///
/// # Errors
/// [`HeadError::Invalid`], with nginx's text, where one of them is none.
pub fn trailers(text: &Bytes) -> Result<Fields, HeadError> {
    let dialect = Dialect { underscores: true, answer: true };
    let (mut line, mut at, mut fields) = (FieldLine::default(), 0, Fields::new());
    loop {
        match line.read(text, &mut at, dialect) {
            Step::Line => fields.add(Span::of(&line).field(text)),
            Step::More | Step::End => return Ok(fields),
            Step::Invalid => {
                return Err(HeadError::invalid(&[b"upstream sent invalid trailer: \"", &line.picture(text), b"\""]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_field() {
        let read = |text: &'static str| {
            let fields = trailers(&Bytes::from_static(text.as_bytes())).map_err(|error| error.to_string())?;
            let lines = fields.iter().map(|field| [&field.name[..], b"=", &field.value].concat());
            Ok::<_, String>(lines.map(|line| String::from_utf8(line).unwrap()).collect::<Vec<_>>().join(","))
        };
        assert_eq!(read("").unwrap(), "");
        assert_eq!(read("X-sum: 42\r\nother:y z  \r\n").unwrap(), "X-sum=42,other=y z");
        assert_eq!(read(": x\r\n").unwrap_err(), "upstream sent invalid trailer: \"\\x3a...\"");
    }
}
