// Package archtest holds the architecture as tests: which package may import which, what the programs may link, that
// every package says what it is, and how large things may grow. docs/architecture.md shows the same table to people.
//
// Layer: tests only; nothing imports it.
package archtest
