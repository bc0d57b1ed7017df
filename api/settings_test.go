package api

import (
	"maps"
	"strings"
	"testing"
)

func TestEnvChange(t *testing.T) {
	old := map[string]string{"A": "1", "B": "2"}
	for _, tt := range []struct {
		change EnvChange
		want   map[string]string
	}{
		{EnvChange{}, old},
		{EnvChange{Set: map[string]string{"A": "3", "C": ""}}, map[string]string{"A": "3", "B": "2", "C": ""}},
		{EnvChange{Unset: []string{"A", "X"}}, map[string]string{"B": "2"}},
		{EnvChange{Replace: true, Set: map[string]string{"D": "4"}}, map[string]string{"D": "4"}},
		{EnvChange{Replace: true}, nil},
	} {
		if got, err := tt.change.Apply(old); err != nil || !maps.Equal(got, tt.want) || len(old) != 2 || tt.change.Validate() != nil {
			t.Errorf("%+v: %v, %v", tt.change, got, err)
		}
	}
	for name, c := range map[string]EnvChange{
		`""`:    {Set: map[string]string{"": "1"}},
		`"A=B"`: {Set: map[string]string{"A=B": "1"}},
		`"A B"`: {Unset: []string{"A B"}},
		`\n`:    {Set: map[string]string{"A\nB": "1"}},
		`\x00`:  {Set: map[string]string{"A\x00": "1"}},
		"KEY":   {Set: map[string]string{"KEY": "a\x00b"}},
		"BOTH":  {Set: map[string]string{"BOTH": "1"}, Unset: []string{"BOTH"}},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: %v, want %s named", c, err, name)
		}
	}
}

// TestValidateBoot: what can be told of a VM's boot without a look at files.
func TestValidateBoot(t *testing.T) {
	for _, c := range []Config{{}, {RootfsPath: "/x"}, {KernelPath: "/k", Image: "debian"}, {BootArgs: strings.Repeat("a", MaxBootArgs)}, {AuthorizedKeys: make([]string, MaxAuthorizedKeys)}} {
		c.ID = "x"
		if err := c.WithDefaults().Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if c := (Config{RootfsPath: "/x"}).WithDefaults(); c.Image != "" {
		t.Errorf("with a root file system it has the image %q", c.Image)
	}
	for says, c := range map[string]Config{
		"takes the place":    {RootfsPath: "/x", Image: "debian"},
		"rootfs path":        {RootfsPath: "x"},
		"kernel path":        {KernelPath: "/x\x00"},
		"boot args":          {BootArgs: strings.Repeat("a", MaxBootArgs+1)},
		"number 1 is not":    {AuthorizedKeys: []string{"a\nb"}},
		"65 are more than":   {AuthorizedKeys: make([]string, MaxAuthorizedKeys+1)},
		"no absolute path":   {RootfsPath: "/" + strings.Repeat("a", maxHostPath)},
		"is no absolute pat": {KernelPath: "../vmlinux"},
	} {
		c.ID = "x"
		if err := c.WithDefaults().Validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.100v: %v, want %q", c, err, says)
		}
	}
}
