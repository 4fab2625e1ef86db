//! `empty_gif`: a picture of one transparent point.

use super::Room;
use crate::{
    config::{Directive, LOCATION, Module, values::Given},
    http::{
        exchange::Exchange,
        phase::{Phase, status},
        response::Response,
    },
};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub enabled: Given,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("empty_gif", LOCATION, |conf| &mut conf.enabled)];

    fn enter(this: &mut std::sync::Arc<Self>, _level: crate::config::Contexts) {
        if this.enabled.0 {
            *this = std::sync::Arc::default();
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// One transparent point in GIF 89a, with a palette of two colours.
const GIF: [u8; 43] = *b"GIF89a\x01\x00\x01\x00\x80\x01\x00\x00\x00\x00\xff\xff\xff\x21\xf9\x04\x01\x00\x00\x01\x00\
    \x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x4c\x01\x00\x3b";

/// When nginx says that it was last changed: 28 September 1970, 06:00.
const MODIFIED: i64 = 23_349_600;

/// Answers with the picture.
pub async fn content(exchange: &mut Exchange) -> Phase {
    if !exchange.method.reads() {
        return status(405);
    }
    let response = Response::with_body(200, &b"image/gif"[..], &GIF[..]);
    Response { last_modified: Some(MODIFIED), ..response }.into_phase()
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, get};

    #[test]
    fn the_picture_is_read_and_not_posted_to() {
        let answer = get("location / { empty_gif; }", "/");
        assert_eq!((answer.status, answer.body.len()), (200, 43));
        assert_eq!(answer.header("last-modified"), Some("Mon, 28 Sep 1970 06:00:00 GMT"));
        let posted = ask("location / { empty_gif; }", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(posted.status, 405);
    }
}
