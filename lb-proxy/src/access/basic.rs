//! Basic authentication (RFC 7617).

use http::{HeaderValue, StatusCode, header};
use lb_route::{
    action::Forward,
    htpasswd::{self, Users},
    settings::BasicAuth,
};

use crate::{access::Granted, answer::Refusal, exchange::Exchange, upstream::Connect};

impl<C: Connect> Exchange<C> {
    /// Whether the client has a user's password.
    ///
    /// # Errors
    /// It has not.
    pub(super) async fn basic(
        &mut self,
        forward: &Forward,
        settings: &BasicAuth,
    ) -> Result<Granted, Refusal> {
        let sent = self.entry.record.headers.get(header::AUTHORIZATION);
        let sent = sent.and_then(htpasswd::credentials);
        let users = forward.location.users.clone();
        // Who reads the Secret refuses requests while it is not there; nobody is let in for that.
        if let (Some((user, password)), Some(users)) = (sent, users)
            && is_known(users, user.clone(), password).await
        {
            self.entry.record.user = Some(user);
            return Ok(Granted::default());
        }
        // A realm is a quoted string (RFC 9110, section 5.6.4).
        let realm = settings.realm.replace('\\', "\\\\").replace('"', "\\\"");
        let challenge = HeaderValue::from_str(&format!("Basic realm=\"{realm}\""));
        let challenge = challenge.unwrap_or(HeaderValue::from_static("Basic realm=\"\""));
        Err(Refusal {
            status: StatusCode::UNAUTHORIZED,
            headers: vec![(header::WWW_AUTHENTICATE, challenge)],
        })
    }
}

async fn is_known(users: std::sync::Arc<Users>, user: String, password: Vec<u8>) -> bool {
    if !users.is_slow(&user) {
        return users.check(&user, &password);
    }
    // A thread of its own: the others serve other requests meanwhile.
    let check = tokio::task::spawn_blocking(move || users.check(&user, &password));
    check.await.unwrap_or(false)
}
