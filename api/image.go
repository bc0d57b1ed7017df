package api

import "time"

// Image is a root file system in the cache, as `image ls` and `image inspect` show it.
type Image struct {
	Name      string    `json:"name"`
	Digest    string    `json:"digest"` // "sha256:…" of the ext4 file
	SizeBytes int64     `json:"size_bytes"`
	CreatedAt time.Time `json:"created_at"`
	Builder   string    `json:"builder"`           // "debian"
	BuilderBy string    `json:"builder_by"`        // version of SmolVM that built it
	Source    string    `json:"source"`            // mirror and suites
	Include   []string  `json:"include,omitempty"` // packages over the default ones, sorted
	Path      string    `json:"path"`
	Packages  []Package `json:"packages,omitempty"` // the SBOM; only `image inspect` fills it
}

// Package is one entry of an image's SBOM.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
	SHA256  string `json:"sha256"` // of the .deb
}

// Kernel is a guest kernel in the cache.
type Kernel struct {
	ID        string    `json:"id"`
	Release   string    `json:"release"` // uname -r
	Package   string    `json:"package"`
	Version   string    `json:"version"` // of the package
	SHA256    string    `json:"sha256"`  // of the .deb
	CreatedAt time.Time `json:"created_at"`
	Path      string    `json:"path"` // of vmlinux
}
