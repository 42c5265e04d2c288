#!/usr/bin/awk -f
# Makes of the comments of a header what Doxygen reads: `//` in front of a declaration becomes `///`, behind
# one `///<`. The first block is about the file. A header that is not installed is left empty.
NR == 1 && /^\/\/ INTERNAL/ { exit }
NR == 1 && /^\/\/ / { print "/// @file"; about_file = 1 }
/^ *\/\/ ----/ { print ""; next }                # a heading between declarations
/^ *\/\// {
  sub(/\/\/ ?/, "/// ")
  gsub(/[<#]/, "\\\\&")  # no markup, no links
  print
  next
}
about_file { print ""; about_file = 0 }
/[;,{}] +\/\/ / && !/"[^"]*\/\/ / { sub(/\/\/ /, "///< ") }
{ print }
