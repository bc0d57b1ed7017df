package har

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/smolvm/smolvm/api"
)

// archive writes one and reads it: it is what the format's schema says.
func archive(t *testing.T, records ...api.NetRecord) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "har-1.2.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	format, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := New(&b, "v1.2.3")
	for _, r := range records {
		if err := w.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v:\n%s", err, b.Bytes())
	}
	if err := format.Validate(got); err != nil {
		t.Errorf("%v:\n%s", err, b.Bytes())
	}
	log, _ := got["log"].(map[string]any)
	return log
}

func TestArchive(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	log := archive(t,
		api.NetRecord{Time: at, Kind: "dns", Name: "a.example"},
		api.NetRecord{Time: at, Kind: "http", Name: "a.example", Port: 443, Verdict: "allow", Rule: "allow a.example=GET", Method: "GET", Path: "/a <b>/ü", HTTPVersion: "HTTP/2", Addr: "192.0.2.1", Status: 200, BytesIn: 5, BytesOut: 3, DurationMs: 7, Secrets: []string{"KEY"}},
		api.NetRecord{Time: at, Kind: "tcp", Name: "a.example"},
		api.NetRecord{Time: at, Kind: "http", Name: "a.example", Port: 443, Verdict: "deny", Reason: "a rule denies it", Method: "POST", Path: "/", Status: 403},
	)
	if log["version"] != "1.2" || !reflect.DeepEqual(log["creator"], map[string]any{"name": "SmolVM", "version": "v1.2.3"}) {
		t.Errorf("%v", log)
	}
	entries, _ := log["entries"].([]any)
	if len(entries) != 2 {
		t.Fatalf("%v", entries)
	}
	// All fields that the format asks for are there.
	list := []any{}
	want := map[string]any{
		"startedDateTime": "2026-01-02T03:04:05.006Z", "time": 7.0,
		"request": map[string]any{
			"method": "GET", "url": "https://a.example/a%20%3Cb%3E/%C3%BC", "httpVersion": "HTTP/2", "cookies": list, "headers": list, "queryString": list, "headersSize": -1.0, "bodySize": 3.0,
		},
		"response": map[string]any{
			"status": 200.0, "statusText": "OK", "httpVersion": "HTTP/2", "cookies": list, "headers": list, "content": map[string]any{"size": 5.0, "mimeType": "application/octet-stream"},
			"redirectURL": "", "headersSize": -1.0, "bodySize": 5.0,
		},
		"cache": map[string]any{}, "timings": map[string]any{"send": 0.0, "wait": 7.0, "receive": 0.0}, "serverIPAddress": "192.0.2.1",
		"_verdict": "allow", "_rule": "allow a.example=GET", "_secrets": []any{"KEY"},
	}
	if !reflect.DeepEqual(entries[0], want) {
		t.Errorf("%v\nwant\n%v", entries[0], want)
	}
	if second, _ := entries[1].(map[string]any); second["_reason"] != "a rule denies it" {
		t.Errorf("%v", entries[1])
	}
}

func TestNoRequests(t *testing.T) {
	log := archive(t, api.NetRecord{Kind: "dns"})
	if entries, ok := log["entries"].([]any); !ok || len(entries) != 0 {
		t.Errorf("%v", log)
	}
}

func TestAddress(t *testing.T) {
	for want, r := range map[string]api.NetRecord{
		"https://a.example/x":           {Name: "a.example", Port: 443, Path: "/x", Proto: "https"},
		"http://a.example/x":            {Name: "a.example", Port: 80, Path: "/x", Proto: "http"},
		"http://a.example:443/x":        {Name: "a.example", Port: 443, Path: "/x", Proto: "http"},
		"https://a.example:8443/x":      {Name: "a.example", Port: 8443, Path: "/x", Proto: "https"},
		"http://b.example/":             {Name: "b.example", Port: 80, Path: "/", Proto: "tcp"},
		"https://b.example:8443/":       {Name: "b.example", Port: 8443, Path: "/"},
		"https://b.example/@s%2Fa:b%25": {Name: "b.example", Port: 443, Path: "/@s%2Fa:b%"},
	} {
		if got := address(r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestFails(t *testing.T) {
	w := New(full{}, "")
	if err := w.Add(api.NetRecord{Kind: "http"}); err == nil {
		t.Error("it was written")
	}
	if err := New(full{}, "").Close(); err == nil {
		t.Error("it was written")
	}
}
