//! The debug log: what is done, step by step, for who asks with `error_log … debug`.
//!
//! The steps are events of `tracing`. While no `error_log` of the http level keeps them nobody listens, and an event
//! costs the look at one number.

use crate::{
    http::Http,
    process::{Level, Line},
};
use arc_swap::ArcSwapOption;
use std::{
    fmt::{Debug, Write},
    sync::Arc,
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
};

/// The generation whose error logs listen.
static LISTENING: ArcSwapOption<Http> = ArcSwapOption::const_empty();

/// From now on the steps go to this generation's error logs, if they keep them.
pub fn follow(http: &Arc<Http>) {
    let keeps = http.settings.error_log.keeps(Level::Debug);
    if !keeps && LISTENING.load().is_none() {
        return;
    }
    LISTENING.store(keeps.then(|| Arc::clone(http)));
    // It is there from the first time on.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Steps));
    tracing::callsite::rebuild_interest_cache();
}

/// Writes events as lines.
struct Steps;

impl Steps {
    /// Libraries have steps of their own, which are nobody's business here.
    fn wants(metadata: &Metadata<'_>) -> bool {
        LISTENING.load().is_some() && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }
}

impl<S: Subscriber> Layer<S> for Steps {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        Self::wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if LISTENING.load().is_some() { LevelFilter::DEBUG } else { LevelFilter::OFF })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let listening = LISTENING.load();
        let Some(http) = listening.as_ref() else { return };
        let mut step = Step::default();
        event.record(&mut step);
        let mut line = Line::new(Level::Debug, step.text.as_bytes());
        line.connection = step.connection;
        for (name, value) in &step.about {
            line.quote(name, value.as_bytes());
        }
        http.settings.error_log.write(http, &line);
    }
}

/// What an event says.
#[derive(Default)]
struct Step {
    text: String,
    /// The field `connection`: the number in front of the line.
    connection: Option<u64>,
    about: Vec<(&'static str, String)>,
}

impl Visit for Step {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "connection" => self.connection = Some(value),
            name => self.about.push((name, value.to_string())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => _ = write!(self.text, "{value:?}"),
            name => self.about.push((name, format!("{value:?}"))),
        }
    }
}
