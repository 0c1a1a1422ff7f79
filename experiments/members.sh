#!/bin/sh
# Trains the members that the plans need beside the shared ones, below data/. A folder that is there already is left alone.
#
#   sh experiments/members.sh          # minutes on two cores: MLPs and LeNets on MNIST, a narrow VGG-11 on CIFAR-10
#   sh experiments/members.sh converged # on CIFAR-10 to their plateau: an MLP, LeNets of three widths, narrow VGG-11s; hours
#   sh experiments/members.sh residual # ResNet-18 of width 16 on CIFAR-10 to its plateau: hours
#   sh experiments/members.sh large    # VGG-11 and ResNet-18 on CIFAR-10: hours without a GPU
set -eu
cd "$(dirname "$0")"
shared=../../shared
mkdir -p data
[ -e data/mnist.tar ] || tar cf data/mnist.tar -C $shared/data/mnist .

# members FOLDER RECIPE: one ensemble.
members() {
    [ -e "data/$1/ensemble.json" ] && return
    echo "$2" > "data/$1.json"
    engraft train --recipe "data/$1.json" --out "data/$1"
    rm "data/$1.json"
}

# mnist FOLDER NETWORK SEEDS EPOCHS; a recipe's files are named from here.
mnist() {
    members "$1" "{\"network\": \"$2\", \"seeds\": [$3], \"dataset\": {\"name\": \"data/mnist.tar\", \"normalize\": {\"mean\": [0.1307], \"std\": [0.3081]}},
        \"train\": {\"epochs\": $4, \"batch_size\": 128, \"optimizer\": {\"name\": \"sgd\", \"lr\": 0.05, \"momentum\": 0.9}}}"
}

# cifar FOLDER NETWORK SEEDS EPOCHS
cifar() {
    members "$1" "{\"network\": \"$2\", \"seeds\": [$3], \"dataset\": {\"name\": \"$shared/data/cifar10-jpeg.zip\", \"normalize\": {\"mean\": [0.5], \"std\": [0.5]}},
        \"train\": {\"epochs\": $4, \"batch_size\": 128, \"augment\": {\"crop_padding\": 4, \"flip\": true},
            \"optimizer\": {\"name\": \"sgd\", \"lr\": 0.05, \"momentum\": 0.9, \"weight_decay\": 0.0005}}}"
}

case "${1:-small}" in
converged)
    cifar lenet-converged lenet 0,1,2,3 45
    cifar mlp-converged mlp:512,512,512 0,1,2,3 45
    cifar lenet-x2 lenet:12 0,1 45
    cifar vgg11-w16-converged vgg11:16 0,1 30
    cifar lenet-x4 lenet:24 0,1 45
    cifar vgg11-w32-converged vgg11:32 0,1 30
    ;;
residual)
    cifar resnet18-w16 resnet18:16 0,1 30
    ;;
large)
    cifar vgg11 vgg11 0,1 60
    cifar resnet18 resnet18:64 0,1 60
    ;;
*)
    mnist mlp-8 mlp:256,256 0,1,2,3,4,5,6,7 5
    for width in 64 128 512 1024; do mnist mlp-w$width "mlp:$width,$width" 0,1 5; done
    mnist mlp-d1 mlp:256 0,1 5
    mnist mlp-d4 mlp:256,256,256,256 0,1 5
    mnist mlp-d6 mlp:256,256,256,256,256,256 0,1 5
    mnist lenet lenet 0,1 5
    cifar vgg11-w16 vgg11:16 0,1 6
    ;;
esac
