//go:build race

package tarball_test

// many is fewer under the race detector, which makes each entry five times as slow.
const many = 100_000
