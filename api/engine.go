package api

// Engine is a program that runs VMs, as it was found on this host.
type Engine struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Path    string `json:"path,omitempty"`
	// Tested says that SmolVM's tests ran on this version.
	Tested bool `json:"tested"`
	// Error is why it cannot be used, Remedy what to do about it.
	Error        string              `json:"error,omitempty"`
	Remedy       string              `json:"remedy,omitempty"`
	Accelerators []EngineAccelerator `json:"accelerators,omitempty"`
}

// EngineAccelerator is a way in which an engine runs guest code.
type EngineAccelerator struct {
	Name     string `json:"name"`
	Emulated bool   `json:"emulated,omitempty"` // which is no security boundary
	// State is missing, untried, usable or useless; Detail says why.
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// EngineInstall says which release of an engine to install.
type EngineInstall struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // "" = the newest one that was tested
	From    string `json:"from,omitempty"`    // an archive that is here already
	SHA256  string `json:"sha256,omitempty"`  // what its digest must be
}

// InstalledEngine is what was installed.
type InstalledEngine struct {
	Name    string            `json:"name"`
	Version string            `json:"version"`
	Path    string            `json:"path"`
	Source  string            `json:"source"`
	SHA256  string            `json:"sha256"` // of the archive
	Files   map[string]string `json:"files"`  // each one's digest
}
