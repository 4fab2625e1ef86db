//! Malformed requests: how a body is framed. Each with the statuses nginx 1.31 answers, and those of Debian's
//! older one where they differ.

use super::{Row, half_closed, row};

/// `&[]` is a connection closed without an answer, 9 an answer of HTTP/0.9.
pub(super) const TABLE: &[Row] = &[
    // The length of a body.
    row(
        "Content-Length and chunked together",
        "%%POST%%%%HEAD%%Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    row(
        "chunked, then Content-Length",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[400],
    ),
    row("the same Content-Length twice", "%%POST%%%%HEAD%%Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", &[400]),
    row("two different Content-Lengths", "%%POST%%%%HEAD%%Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", &[400]),
    row("a list of Content-Lengths", "%%POST%%%%HEAD%%Content-Length: 3, 3\r\n\r\nabc", &[400]),
    row("a negative Content-Length", "%%POST%%%%HEAD%%Content-Length: -1\r\n\r\n", &[400]),
    row("a Content-Length with a plus", "%%POST%%%%HEAD%%Content-Length: +3\r\n\r\nabc", &[400]),
    row("a Content-Length with letters", "%%POST%%%%HEAD%%Content-Length: 3x\r\n\r\nabc", &[400]),
    row("a hexadecimal Content-Length", "%%POST%%%%HEAD%%Content-Length: 0x3\r\n\r\nabc", &[400]),
    row("an empty Content-Length", "%%POST%%%%HEAD%%Content-Length:\r\n\r\n", &[400]),
    row("a Content-Length beyond 64 bits", "%%POST%%%%HEAD%%Content-Length: 99999999999999999999\r\n\r\nabc", &[400]),
    row("a Content-Length with a leading zero", "%%POST%%%%HEAD%%Content-Length: 003\r\n\r\nabc", &[200]),
    row("a Content-Length with blanks around", "%%POST%%%%HEAD%%Content-Length:   3  \r\n\r\nabc", &[200]),
    row("a Content-Length with a blank inside", "%%POST%%%%HEAD%%Content-Length: 3 3\r\n\r\nabc", &[400]),
    row("a blank before the colon of Content-Length", "%%POST%%%%HEAD%%Content-Length : 3\r\n\r\nabc", &[400]),
    half_closed("a body shorter than its length, then the end", "%%POST%%%%HEAD%%Content-Length: 10\r\n\r\nabc", &[]),
    row(
        "a body longer than its length is the next request",
        "%%POST%%Host: localhost\r\nContent-Length: 3\r\n\r\nabcdef",
        &[200, 400],
    ),
    row(
        "a request behind the body is a request of its own",
        "%%POST%%Host: localhost\r\nContent-Length: 3\r\n\r\nabcGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[200, 200],
    ),
    // Transfer-Encoding.
    row("plain chunked", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &[200]),
    row("chunked in capitals", "%%POST%%%%HEAD%%Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &[200]),
    row("gzip, chunked", "%%POST%%%%HEAD%%Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &[501]),
    row("chunked, gzip", "%%POST%%%%HEAD%%Transfer-Encoding: chunked, gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &[501]),
    row("chunked, chunked", "%%POST%%%%HEAD%%Transfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &[501]),
    row(
        "chunked twice as headers",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    row(
        "chunked and identity as headers",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    row("identity", "%%POST%%%%HEAD%%Transfer-Encoding: identity\r\n\r\n", &[501]),
    row(
        "identity with a length",
        "%%POST%%%%HEAD%%Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
        &[501],
    ),
    row("an unknown encoding", "%%POST%%%%HEAD%%Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &[501]),
    row("quoted chunked", "%%POST%%%%HEAD%%Transfer-Encoding: \"chunked\"\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &[501]),
    row(
        "chunked with a tab before",
        "%%POST%%%%HEAD%%Transfer-Encoding: \tchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[501],
    ),
    row(
        "chunked with a vertical tab",
        "%%POST%%%%HEAD%%Transfer-Encoding: \\x0bchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[501],
    ),
    row(
        "chunked with a blank before the colon",
        "%%POST%%%%HEAD%%Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    row("an empty Transfer-Encoding", "%%POST%%%%HEAD%%Transfer-Encoding: \r\n\r\n", &[501]),
    row(
        "chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\n%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[400],
    ),
    row(
        "chunked with a parameter",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked;q=1\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[501],
    ),
    row("a folded Transfer-Encoding", "%%POST%%%%HEAD%%Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", &[400]),
    // Chunks.
    row("a size that is no number", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\nx\r\nabc\r\n0\r\n\r\n", &[400]),
    row("an empty size", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", &[400]),
    row("a negative size", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", &[400]),
    row("a size with 0x", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", &[400]),
    row(
        "a size beyond 64 bits",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        &[400],
    ),
    row(
        "a size near the end of 63 bits",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nabc\r\n0\r\n\r\n",
        &[400],
    ),
    row(
        "capital and small hexadecimal",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
        &[200],
    ),
    row("leading zeros", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n000\r\n\r\n", &[200]),
    row("an extension", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", &[200]),
    row(
        "an extension with a bare LF",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3;a=b\nabc\r\n0\r\n\r\n",
        &[400],
    )
    .older(&[200]),
    row(
        "an extension with a bare CR",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n",
        &[400],
    ),
    row("a blank behind the size", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", &[200]),
    row("a tab behind the size", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\t\r\nabc\r\n0\r\n\r\n", &[200]),
    row("a blank before the size", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n", &[400]),
    row("no CRLF behind the data", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n", &[400]),
    row(
        "data longer than its size",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        &[400],
    ),
    row("a bare LF behind the size", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", &[400])
        .older(&[200]),
    row("a bare LF behind the data", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", &[400])
        .older(&[200]),
    row("bare LFs at the end", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\n\n", &[400])
        .older(&[200]),
    row("a bare CR behind the size", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\rabc\r\n0\r\n\r\n", &[400]),
    row("a trailer", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: v\r\n\r\n", &[200]),
    row(
        "a trailer that frames",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
        &[200],
    ),
    row(
        "a trailer without colon",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nnonsense\r\n\r\n",
        &[200],
    ),
    half_closed(
        "the end is missing, the client is gone",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        &[],
    ),
    half_closed(
        "the data are missing, the client is gone",
        "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n30\r\nabc",
        &[],
    ),
    row("NUL in the size", "%%POST%%%%HEAD%%Transfer-Encoding: chunked\r\n\r\n3\0\r\nabc\r\n0\r\n\r\n", &[400]),
    row(
        "a request behind the last chunk is a request of its own",
        "%%POST%%Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\
         \r\nHost: localhost\r\n\r\n",
        &[200, 200],
    ),
];
