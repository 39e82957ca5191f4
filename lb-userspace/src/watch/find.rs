//! Finds objects of a cluster by a part of their names: only metadata is read.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ListParams, ObjectList, PartialObjectMeta},
};
use lb_route::input::Name;

use super::reflect::{Error, Settings, client};
use crate::change::Kind;

/// Objects of a page of a list.
const PAGE: u32 = 500;

/// The ConfigMaps of all namespaces that have `part` in their names, sorted.
///
/// # Errors
/// The configuration cannot be used, or the server does not list them.
pub async fn config_maps(settings: &Settings, part: &str) -> Result<Vec<Name>, Error> {
    let (client, _) = client(settings).await?;
    let api = Api::<ConfigMap>::all(client);
    let mut parameters = ListParams::default().limit(PAGE);
    let mut names = Vec::new();
    loop {
        let listed: kube::Result<ObjectList<PartialObjectMeta<ConfigMap>>> =
            api.list_metadata(&parameters).await;
        let page = listed.map_err(|source| Error::List {
            kind: Kind::ConfigMap,
            source: Box::new(source),
        })?;
        let found = page.items.iter().filter_map(|object| {
            let name = object.metadata.name.as_deref()?;
            let namespace = object.metadata.namespace.as_deref()?;
            name.contains(part).then(|| Name::new(namespace, name))
        });
        names.extend(found);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
    }
    names.sort();
    Ok(names)
}
