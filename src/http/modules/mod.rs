//! Every module, in one list. The order here means nothing; see [`super::pipeline`] for order.

use super::variables::{Computed, Prefixed, Variable};
use crate::{
    config::{Contexts, Handle, Module, Registry, Scope},
    syntax::Fault,
};
use std::sync::Arc;

/// What http asks of a module beside its directives.
pub trait Room: Module {
    const VARIABLES: &'static [Variable] = &[];
    const FAMILIES: &'static [Prefixed] = &[];

    /// What the module remembers about one request.
    type State: Default;

    /// The variables that this level's settings define by a rule.
    fn computed(&self) -> Vec<(Handle, Computed)> {
        Vec::new()
    }
}

/// Turns the list of modules into the structs that hold one field per module. This is the only
/// place that names them all, and the only macro of its kind.
macro_rules! modules {
    ($($module:ident,)*) => {
        $(pub mod $module;)*

        /// What every module was told at one level. A module that this level does not mention
        /// shares its settings with the level above.
        #[derive(Clone, Default)]
        pub struct Settings {
            $(pub $module: Arc<$module::Conf>,)*
        }

        impl Settings {
            /// The settings a nested level starts from.
            #[must_use]
            pub fn enter(&self, level: Contexts) -> Self {
                let mut nested = self.clone();
                $(Module::enter(&mut nested.$module, level);)*
                nested
            }

            /// Settles what differs from the level above; the rest was settled there.
            pub fn settle(&mut self, above: &Self, scope: &Scope<'_>, level: Contexts) {
                let collect = |settled: Result<(), Fault>| settled.err().into_iter().for_each(|fault| scope.fault(fault));
                $(if !Arc::ptr_eq(&self.$module, &above.$module) {
                    collect(Arc::make_mut(&mut self.$module).settle(scope, level));
                })*
            }

            /// The variables that these settings define by a rule.
            pub fn computed(&self) -> Vec<(Handle, Computed)> {
                let mut all = Vec::new();
                $(all.extend(self.$module.computed());)*
                all
            }
        }

        /// What every module remembers about one request.
        #[derive(Default)]
        pub struct State {
            $(pub $module: <$module::Conf as Room>::State,)*
        }

        /// All directives of http, server and location.
        pub fn registry() -> Registry<Settings> {
            let mut registry = Registry::default();
            $(registry.add(|all: &mut Settings| &mut all.$module);)*
            registry
        }

        /// All variables that rooms compute.
        pub fn variables() -> impl Iterator<Item = &'static Variable> {
            [$(<$module::Conf as Room>::VARIABLES,)*].into_iter().flatten()
        }

        /// All families of variables, the longer prefixes of the same beginning first.
        pub fn families() -> impl Iterator<Item = &'static Prefixed> {
            [$(<$module::Conf as Room>::FAMILIES,)*].into_iter().flatten()
        }
    };
}

modules! {
    access,
    access_log,
    addition,
    api,
    auth_basic,
    auth_delay,
    auth_request,
    autoindex,
    brotli,
    browser,
    charset,
    core,
    dashboard,
    dav,
    empty_gif,
    error_log,
    error_page,
    fastcgi,
    geo,
    gunzip,
    gzip,
    gzip_static,
    headers,
    index,
    limit_conn,
    limit_req,
    map,
    memcached,
    metrics,
    mirror,
    proxy,
    proxy_protocol,
    proxy_status,
    random_index,
    realip,
    referer,
    resolver,
    rewrite,
    scgi,
    secure_link,
    server,
    slice,
    split_clients,
    ssi,
    static_files,
    status_zone,
    stub_status,
    sub_filter,
    try_files,
    tunnel,
    upstream,
    upstream_hc,
    upstream_register,
    userid,
    uwsgi,
    zstd,
}
