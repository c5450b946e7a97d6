// SPDX-License-Identifier: Apache-2.0

// Package kubeobj turns Kubernetes API objects into our plain values; it reads no file and asks no API server.
//
// Errors are joined, one for each mistake, and each begins with the path of the field: "spec.ports[0].port: ...".
//
// A source of objects, be it a directory or an API server, feeds a Book and passes on what changes:
//
//	an object comes or changes   Service(o), EndpointSlice(o) or Endpoints(o); if it is ours book.Put(key, object),
//	                             if not, or if it is wrong and never was right, book.Delete(key)
//	an object goes               book.Delete(key)
//	everything is known, or      emit(book.Take(), problems): what Keeper.Change of pkg/engine/portals takes in. Until
//	something has changed        the first time nothing is programmed, so that a restart takes nothing away
package kubeobj
