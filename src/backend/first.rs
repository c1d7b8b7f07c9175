//! The first administrator: made at a start without any, from what the operator has set.

use super::accounts;
use super::refusal::Refusal;
use super::state::State;
use super::tokens::Role;
use crate::scalar::Secret;

pub(super) async fn admin(state: &State) -> Result<(), Refusal> {
    let there = state.store.read(|connection| {
        let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE role = 'admin')";
        Ok::<_, Refusal>(connection.query_row(sql, [], |row| row.get::<_, bool>(0))?)
    });
    if there.await? {
        return Ok(());
    }
    let words = &state.words.admin;
    let email = words.email.clone().unwrap_or_default();
    let password = words.password.clone().unwrap_or_else(|| Secret::new(""));
    if email.is_empty() || password.expose().is_empty() {
        tracing::warn!("there is no administrator: set admin.email and admin.password, and start again");
        return Ok(());
    }
    let email = accounts::email(&email)?;
    let hash = state.passwords.hash(password).await?;
    let made = state.store.write(move |connection| {
        // Whoever has signed up under the operator's address is not the operator: the password is another from now on.
        connection.execute("DELETE FROM users WHERE email = ?1", [&email])?;
        accounts::create(connection, &email, &hash, Role::Admin)
    });
    let id = made.await?;
    tracing::info!(id, "the first administrator was made");
    Ok(())
}
