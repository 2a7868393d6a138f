"""The trained models that come with the package; each name is an entry point to its weights."""

from pathlib import Path

_WEIGHTS = Path(__file__).parent / "weights"

digits_clip = _WEIGHTS / "digits-clip.safetensors"
digits_cnn = _WEIGHTS / "digits-cnn.safetensors"
digits_cnn_at = _WEIGHTS / "digits-cnn-at.safetensors"
mnist_cnn = _WEIGHTS / "mnist-cnn.safetensors"
mnist_cnn_at = _WEIGHTS / "mnist-cnn-at.safetensors"
cifar10_resnet = _WEIGHTS / "cifar10-resnet.safetensors"
cifar10_resnet_at = _WEIGHTS / "cifar10-resnet-at.safetensors"
digits_hog_linear = _WEIGHTS / "digits-hog-linear.safetensors"
digits_hog_rbf = _WEIGHTS / "digits-hog-rbf.safetensors"
mnist_hog_linear = _WEIGHTS / "mnist-hog-linear.safetensors"
mnist_hog_rbf = _WEIGHTS / "mnist-hog-rbf.safetensors"
mnist_cnn_thermometer = _WEIGHTS / "mnist-cnn-thermometer.safetensors"
mnist_cnn_kwta = _WEIGHTS / "mnist-cnn-kwta.safetensors"
mnist_cnn_teacher = _WEIGHTS / "mnist-cnn-teacher.safetensors"
mnist_cnn_distilled = _WEIGHTS / "mnist-cnn-distilled.safetensors"
mnist_cnn_noise = _WEIGHTS / "mnist-cnn-noise.safetensors"
