// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/l3edge/l3edge/pkg/core/version"
)

// Access says how to reach the API server. The zero value: as a pod does, by its service account.
type Access struct {
	Kubeconfig string // path of a kubeconfig file; empty: the pod's service account
	// Server is a URL that replaces the one in the kubeconfig or the pod's environment, or the path of a file that holds
	// it; empty: none does. Whoever answers for the API server's own service address cannot begin with asking it there.
	Server string

	// retry is the pause after a failure; nil: retry.
	retry *wait.Backoff
}

// retry is how long to wait before asking an API server again that failed: it is to be found soon after it is back, and
// not by all nodes at once.
var retry = wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 30, Cap: 5 * time.Second}

// Client is a way to one API server. It is safe for concurrent use.
type Client struct {
	core, discovery, networking rest.Interface
	retry                       wait.Backoff
}

// scheme knows only what this package reads and writes: all of Kubernetes' types cost ten times the memory.
var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for gv, list := range map[schema.GroupVersion][]runtime.Object{
		v1.SchemeGroupVersion:         {&v1.Service{}, &v1.ServiceList{}, &v1.Node{}, &v1.NodeList{}, &v1.Event{}},
		discovery.SchemeGroupVersion:  {&discovery.EndpointSlice{}, &discovery.EndpointSliceList{}},
		networking.SchemeGroupVersion: {&networking.ServiceCIDR{}, &networking.ServiceCIDRList{}},
	} {
		s.AddKnownTypes(gv, list...)
		metav1.AddToGroupVersion(s, gv)
	}
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s
}()

// Open prepares to talk to the API server. It asks nothing yet: an error is one of configuration.
func Open(a Access) (*Client, error) {
	conf, err := a.config()
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	conf.UserAgent = "l3edge/" + version.Version
	conf.ContentType = runtime.ContentTypeProtobuf
	conf.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	conf.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	conf.QPS, conf.Burst = 50, 100
	c := &Client{retry: retry}
	if a.retry != nil {
		c.retry = *a.retry
	}
	var errs []error
	client := func(gv schema.GroupVersion, path string) rest.Interface {
		conf := rest.CopyConfig(conf)
		conf.GroupVersion, conf.APIPath = &gv, path
		r, err := rest.RESTClientFor(conf)
		errs = append(errs, err)
		return r
	}
	c.core = client(v1.SchemeGroupVersion, "/api")
	c.discovery = client(discovery.SchemeGroupVersion, "/apis")
	c.networking = client(networking.SchemeGroupVersion, "/apis")
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return c, nil
}

func (a Access) config() (*rest.Config, error) {
	if strings.HasPrefix(a.Server, "/") {
		b, err := os.ReadFile(a.Server)
		if err != nil {
			return nil, fmt.Errorf("find the API server: %w", err)
		}
		a.Server = strings.TrimSpace(string(b))
	}
	if a.Kubeconfig == "" {
		conf, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("this is no pod with a service account: name a kubeconfig file")
		}
		if err == nil && a.Server != "" {
			conf.Host = a.Server
		}
		return conf, err
	}
	over := &clientcmd.ConfigOverrides{}
	over.ClusterInfo.Server = a.Server
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: a.Kubeconfig}, over).ClientConfig()
}
