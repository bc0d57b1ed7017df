// Package images holds the HTTP API's routes about what VMs boot from.
//
// Layer: part of the front server. It may import internal/server/web, api, errdefs.
package images

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/server/web"
)

// Store is the cache of images. It belongs to a layer that this one may not see, so that main joins the two.
type Store interface {
	// List returns the images, and what is broken.
	List() ([]api.Image, []error)
	Inspect(name string) (api.Image, error)
	// Make makes an image, and the kernel that goes with it, unless they are there.
	Make(ctx context.Context, b Build, progress api.ProgressFunc) (api.Image, error)
	Remove(ctx context.Context, name string) error
}

// Build says which image to make.
type Build struct {
	Name    string   `json:"name,omitempty" minLength:"1" maxLength:"63" doc:"default debian"`
	Refresh bool     `json:"refresh,omitempty" doc:"the newest, even if there is one"`
	Include []string `json:"include,omitempty" doc:"Debian packages over the default ones; such an image needs a name of its own"`
}

// Routes adds the operations.
type Routes struct{ Store Store }

const tag = "images"

// Register adds them to the API.
func (r Routes) Register(to huma.API) {
	web.Register(to, huma.Operation{OperationID: "list-images", Method: http.MethodGet, Path: "/v1/images", Tags: []string{tag}, Summary: "List images"}, r.list)
	web.Register(to, huma.Operation{OperationID: "get-image", Method: http.MethodGet, Path: "/v1/images/{name}", Tags: []string{tag}, Summary: "Show an image with its packages"}, r.get)
	web.Long(to, huma.Operation{
		OperationID: "build-image", Method: http.MethodPost, Path: "/v1/images", Tags: []string{tag}, Summary: "Make an image, and the kernel that goes with it",
		Description: "What is there already is not made again unless refresh is set. It takes minutes: ask for events to hear of it.",
	}, r.build)
	web.Register(to, huma.Operation{OperationID: "delete-image", Method: http.MethodDelete, Path: "/v1/images/{name}", Tags: []string{tag}, Summary: "Delete an image that no VM holds"}, r.remove)
}

// ImageList is a list of images.
type ImageList struct {
	Images []api.Image `json:"images"`
	// Broken tells what of the cache cannot be used.
	Broken []*web.Problem `json:"broken,omitempty"`
}

// Named is what operations on one image have in their path.
type Named struct {
	Name string `path:"name" maxLength:"128" doc:"the image's name or digest" example:"debian"`
}

func (r Routes) list(context.Context, *struct{}) (*web.Body[ImageList], error) {
	images, broken := r.Store.List()
	out := ImageList{Images: append([]api.Image{}, images...)}
	for _, err := range broken {
		out.Broken = append(out.Broken, web.ProblemOf(err))
	}
	return &web.Body[ImageList]{Body: out}, nil
}

func (r Routes) get(_ context.Context, in *Named) (*web.Body[api.Image], error) {
	img, err := r.Store.Inspect(in.Name)
	return &web.Body[api.Image]{Body: img}, err
}

func (r Routes) build(ctx context.Context, in *struct{ Body Build }, progress api.ProgressFunc) (api.Image, error) {
	b := in.Body
	if b.Name == "" {
		b.Name = api.DefaultImage
	}
	return r.Store.Make(ctx, b, progress)
}

func (r Routes) remove(ctx context.Context, in *Named) (*struct{}, error) {
	return nil, r.Store.Remove(ctx, in.Name)
}
