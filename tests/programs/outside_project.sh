#!/usr/bin/env bash
# A project outside the tree finds the installed package, through CMake and through pkg-config, builds
# against it and runs.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
cmake --install "$BINADE_BUILD" --prefix "$work/prefix" >/dev/null
library=$(find "$work/prefix" -name libbinade.so)
version=$(sed -n 's/^#define BINADE_VERSION_[A-Z]* \([0-9]*\)$/\1/p' "$here/core/version.h" | paste -sd.)

expect "a project of CMake's finds the package" 0 "" \
  cmake -S "$here/tests/outside" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix"
expect "… builds against it" 0 "" cmake --build "$work/build"
expect "… and runs" 0 "y = 2.000 x + -1.000" "$work/build/regression"

cp -r "$here/examples/first_steps" "$work/copied"
expect "the folder of first steps is a project that can be copied" 0 "" \
  cmake -S "$work/copied" -B "$work/copied/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix"
expect "… and built" 0 "" cmake --build "$work/copied/build" --target first_steps
expect "… and runs" 0 "y = " "$work/copied/build/first_steps"

expect "the linker knows the library by its minor version" 0 "[libbinade.so.${version%.*}]" \
  readelf --dynamic "$library"
grep -q "\"version-semver\": \"$version\"" "$here/vcpkg.json" && problem= || problem="it is not $version"
report "vcpkg.json has the version of core/version.h" "$problem"
if command -v pkg-config >/dev/null; then
  PKG_CONFIG_PATH=$(dirname "$library")/pkgconfig
  export PKG_CONFIG_PATH
  expect "pkg-config knows the version" 0 "$version" pkg-config --modversion binade
  # The tree may be moved: what the file says is relative to it.
  mv "$work/prefix" "$work/moved"
  PKG_CONFIG_PATH=${PKG_CONFIG_PATH/"$work/prefix"/"$work/moved"}
  # shellcheck disable=SC2046
  expect "… and what a compiler needs" 0 "" "${CXX:-g++}" -std=c++20 "$here/tests/outside/regression.cpp" \
    -o "$work/regression" $(pkg-config --cflags --libs binade)
  expect "… for a program that runs" 0 "y = 2.000 x + -1.000" \
    env LD_LIBRARY_PATH="$(pkg-config --variable=libdir binade)" "$work/regression"
else
  echo "skip the package through pkg-config: pkg-config is not installed"
fi
