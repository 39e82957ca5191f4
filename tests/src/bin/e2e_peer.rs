//! A process of a pod or node in the end-to-end tests.

fn main() -> std::io::Result<()> {
    bascule_tests::e2e::worker::work()
}
