//! Sets what a Node addon needs from the linker; among it that it stays loaded, since its threads may outlive a worker.

fn main() {
    napi_build::setup();
}
