package image

import (
	"archive/tar"
	"context"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// lister builds images that hold the names of the packages asked for.
type lister struct{ built *[]string }

func (l lister) Name() string { return api.DefaultImage }

func (l lister) Build(_ context.Context, r BuildRequest, w io.Writer) (Facts, error) {
	text := strings.Join(r.Include, " ")
	*l.built = append(*l.built, text)
	t := tar.NewWriter(w)
	if err := t.WriteHeader(&tar.Header{Name: "packages", Mode: 0o644, Size: int64(len(text))}); err != nil {
		return Facts{}, err
	}
	if _, err := io.WriteString(t, text); err != nil {
		return Facts{}, err
	}
	return Facts{Source: "test"}, t.Close()
}

// TestEnsureInclude: an image is made again when other packages are asked for, and keeps its own when none are named.
func TestEnsureInclude(t *testing.T) {
	var built []string
	s := New(Options{Home: filepath.Join(t.TempDir(), "home"), Builders: []Builder{lister{&built}}, Version: "test"})
	digests := map[string]string{}
	for _, step := range []struct {
		include []string
		refresh bool
		want    string // of the image
		builds  bool
	}{
		{[]string{"b", "a"}, false, "a b", true},
		{[]string{"a", "b", "a"}, false, "a b", false},
		{nil, false, "a b", false},
		{nil, true, "a b", true},
		{[]string{"a"}, false, "a", true},
		{nil, false, "a", false},
	} {
		before := len(built)
		img, err := s.Ensure(t.Context(), "mine", EnsureOptions{Include: step.include, Refresh: step.refresh})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(img.Include, " "); got != step.want || (len(built) > before) != step.builds {
			t.Errorf("%+v: it has %q, built: %q", step, got, built[before:])
		}
		if was, ok := digests[step.want]; ok && was != img.Digest {
			t.Errorf("%+v: another image than before", step)
		}
		digests[step.want] = img.Digest
	}
	if img, err := s.Ensure(t.Context(), api.DefaultImage, EnsureOptions{}); err != nil || !slices.Equal(img.Include, nil) {
		t.Errorf("%v, %v", img.Include, err)
	}
	if _, err := s.Ensure(t.Context(), api.DefaultImage, EnsureOptions{Include: []string{"a"}}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("the default image with other packages: %v", err)
	}
}
