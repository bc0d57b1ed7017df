package api

import (
	"strings"
	"testing"
)

// TestSizes: limits of what is in the guest depend on its memory, also when that is changed later.
func TestSizes(t *testing.T) {
	base := Config{ID: "x"}.WithDefaults()
	tests := []struct {
		name   string
		change func(*Config)
		says   string
	}{
		{"defaults", func(*Config) {}, ""},
		{"all that there may be", func(c *Config) { c.MaxProcesses, c.ConsoleMiB, c.LogMiB, c.OutputMiB = 2048, 1024, 1024, 16 }, ""},
		{"too few processes", func(c *Config) { c.MaxProcesses = 15 }, "max processes: 15"},
		{"too many processes", func(c *Config) { c.MaxProcesses = 2049 }, "16 to 2048"},
		{"more than any machine has", func(c *Config) { c.MemoryMiB, c.MaxProcesses = 1<<20, 32769 }, "16 to 32768"},
		{"console", func(c *Config) { c.ConsoleMiB = 1025 }, "console size"},
		{"negative console", func(c *Config) { c.ConsoleMiB = -1 }, "console size"},
		{"log", func(c *Config) { c.LogMiB = 1025 }, "log size"},
		{"output", func(c *Config) { c.OutputMiB = 17 }, "1 to 16 MiB"},
		{"output of a small machine", func(c *Config) { c.MemoryMiB, c.OutputMiB = 128, 9 }, "1 to 8 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := base
			tt.change(&c)
			err := c.Validate()
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
	c := base
	c.OutputMiB = 16
	if _, err := c.With(Limits{MemoryMiB: 128}); err == nil {
		t.Error("less memory than the output needs")
	}
	c, err := c.With(Limits{MaxProcesses: 100, ConsoleMiB: 2, LogMiB: 3, OutputMiB: 4})
	if err != nil || c.MaxProcesses != 100 || c.ConsoleMiB != 2 || c.LogMiB != 3 || c.OutputMiB != 4 || c.MemoryMiB != DefaultMemoryMiB {
		t.Errorf("%+v, %v", c, err)
	}
}
