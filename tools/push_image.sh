#!/bin/sh
# Build this commit's image and push it, unless it was pushed before: tools/push_image.sh ENGINE ARCHITECTURE IMAGE
#
# ARCHITECTURE is Lambda's name for it, x86_64 or arm64. IMAGE is a repository of ECR and a tag that begins with the
# commit. Tags never move: each commit has its own image, which is pushed once.
set -eu
engine=$1
architecture=$2
image=$3
repository=${image%:*}
tag=${image##*:}

if aws ecr describe-images --repository-name "${repository#*/}" --image-ids imageTag="$tag" > /dev/null 2>&1; then
    echo "The image $image is there."
    exit
fi
if [ "${tag%%-*}" != "$(git rev-parse --short=12 HEAD)" ]; then
    echo "There is no image $image: check out that commit and run 'make deploy' there." >&2
    exit 1
fi
if ! git diff --quiet HEAD; then
    echo "There are changes that are not committed: commit them, as the image is named by its commit." >&2
    exit 1
fi

case $architecture in
    x86_64) platform=linux/amd64 ;;
    *) platform=linux/$architecture ;;
esac
aws ecr get-login-password | docker login --username AWS --password-stdin "${repository%%/*}"
# BuildKit's attestations would make it an image index, which Lambda refuses.
docker build --platform "$platform" --provenance=false --build-arg ENGINE="$engine" --tag "$image" .
docker push "$image"
