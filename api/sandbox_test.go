package api

import (
	"encoding/json"
	"testing"
)

// TestSandboxKeys: what programs look for is there in every state, also where it says nothing.
func TestSandboxKeys(t *testing.T) {
	b, err := json.Marshal(Sandbox{})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"id", "state", "reason", "owner", "supervisor_pid", "vmm_pid", "engine", "accelerator", "confinement", "network", "config", "created_at",
	} {
		if _, ok := got[key]; !ok {
			t.Errorf("%q is missing in %s", key, b)
		}
	}
}
