//! Facts of the plugin and linker options of its library.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    plugin_build::build()
}
