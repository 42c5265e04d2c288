# Install rules and find_package(binade).
