//go:build !race

package tarball_test

const many = 1_000_000
